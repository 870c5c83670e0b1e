"""A line of the table: a figure with its interval, what it is measured beside, and what was to be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from torch import Tensor

from microcinema_core.metrics.bootstrap import interval


@dataclass(frozen=True)
class Row:
    """`met` is None where nothing was to be reached."""

    what: str
    figure: str
    beside: str = ""
    target: str = ""
    met: bool | None = None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Estimate:
    """A statistic of all clips, and its 95% interval over resampled motion keys."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, statistic: Callable[[Tensor], float], weights: Tensor) -> Estimate:
        """weights: (resamples, n); the value takes every clip once."""
        return cls(statistic(weights.new_ones(weights.shape[1])), *interval(statistic, weights))

    def show(self, digits: int = 2, unit: str = "") -> str:
        """`0.52 [0.44, 0.61]`, with the unit behind."""
        text = f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{text} {unit}".rstrip()


def markdown(rows: Iterable[Row]) -> str:
    """The table."""
    verdict = {True: "yes", False: "**no**", None: ""}
    lines = ["| what | measured | beside it | to reach | reached |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.figure} | {r.beside} | {r.target} | {verdict[r.met]} |" for r in rows]
    return "\n".join(lines)
