"""Rows of the results table: a value with its interval, reference values beside it, and a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from microcinema_core.metrics.bootstrap import interval

_OLD_KEYS = {"what": "metric", "figure": "value", "beside": "reference"}
"""Keys in results that were stored before 0.2.0."""


@dataclass(frozen=True)
class ResultRow:
    """One metric of the table.

    Attributes:
        metric: what was measured.
        value: the result, with its interval and unit.
        reference: what to compare it with: baselines and upper bounds.
        target: the value to reach; empty if there is no target.
        met: whether the target was reached; None without a target.
    """

    metric: str
    value: str
    reference: str = ""
    target: str = ""
    met: bool | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> ResultRow:
        """Build the row from stored JSON, of this version or an older one."""
        return cls(**{_OLD_KEYS.get(key, key): value for key, value in stored.items()})


@dataclass(frozen=True)
class Estimate:
    """A statistic over all clips, with its 95% bootstrap interval over motion keys."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, statistic: Callable[[Tensor], float], weights: Tensor) -> Estimate:
        """Estimate a statistic of clip weights.

        Args:
            statistic: function that maps clip weights (n,) to a number.
            weights: multiplicities of the clips in each resample, (resamples, n). The value itself weights all clips
                equally.
        """
        return cls(statistic(weights.new_ones(weights.shape[1])), *interval(statistic, weights))

    def show(self, digits: int = 2, unit: str = "") -> str:
        """Format as `0.52 [0.44, 0.61] unit`."""
        text = f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{text} {unit}".rstrip()


def markdown(rows: Iterable[ResultRow], others: Iterable[ResultRow] | None = None) -> str:
    """Format the rows as a Markdown table.

    Args:
        rows: the results.
        others: results of other files, shown beside those of the same metric.
    """
    verdict = {True: "yes", False: "**no**", None: ""}
    other = {row.metric: row.value for row in others or ()}
    lines = [["metric", "value", "other files", "reference", "target", "reached"], ["---"] * 6]
    lines += [
        [r.metric, r.value, other.get(r.metric, ""), r.reference, r.target, verdict[r.met]] for r in rows
    ]
    if others is None:
        lines = [[*line[:2], *line[3:]] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
