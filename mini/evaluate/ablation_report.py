"""Print the ablations as tables with intervals and corrected comparisons, and draw Fig. 6."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microcinema_core.files.atomic import atomic_write
from microcinema_core.metrics.bootstrap import key_weights, weighted_median
from microcinema_core.metrics.distance import KernelDistance

from .ablation_measure import Values
from .ablation_plan import GAMMAS, LAMBDAS, TABLES, Cell, Table, grid_row
from .ablation_statistics import Estimate, estimate, holm

RESAMPLES = 1000
KERNEL = "kernel distance"
DIGITS = {KERNEL: 2, "motion over real": 2, "drift over real": 2, "centre frame, dB": 2, "prompted motion": 3}
"""The metrics, and the digits that are shown. Kernel distance and drift are better low, the others high or near 1."""
SIGNIFICANT = 0.05
CLAIMS, OTHERS = "the paper's claims in kernel distance", "other comparisons"
"""The families of a table's comparisons."""


@dataclass(frozen=True)
class Measured:
    """All stored values.

    Attributes:
        runs: by cell, the values of each seed, in the order of the seeds.
        real: those of the real clips.
        keys, prompted_keys: motion keys of the clips, and of those with a prompted motion.
    """

    runs: Mapping[Cell, Sequence[Values]]
    real: Values
    keys: Sequence[str]
    prompted_keys: Sequence[str]


Statistic = tuple[list[float], Tensor]
"""The value of each seed, and the mean over seeds in each resample of the keys."""


class Statistics:
    """Means of every metric and cell, over the same resamples of the keys, so that differences are paired."""

    def __init__(self, measured: Measured, resamples: int = RESAMPLES) -> None:
        self.measured = measured
        self.weights = key_weights(measured.keys, resamples, seed=0)
        self.prompted_weights = key_weights(measured.prompted_keys, resamples, seed=1)
        self._known: dict[tuple[str, Cell], Statistic] = {}

    def of(self, metric: str, cell: Cell) -> Statistic:
        """Return a metric of a cell."""
        if (metric, cell) not in self._known:
            self._known[metric, cell] = self._compute(metric, cell)
        return self._known[metric, cell]

    def _compute(self, metric: str, cell: Cell) -> Statistic:
        weights = self.prompted_weights if metric == "prompted motion" else self.weights
        everything = torch.cat([torch.ones_like(weights[:1]), weights])
        rows = [self._rows(metric, values, everything) for values in self.measured.runs[cell]]
        return [float(row[0]) for row in rows], torch.stack(rows)[:, 1:].mean(0)

    def _rows(self, metric: str, values: Values, weights: Tensor) -> Tensor:
        """Return a metric of one run for each row of clip weights, (r,)."""
        real = self.measured.real
        if metric == KERNEL:
            distance = KernelDistance(real["features"], values["features"], self.measured.keys)
            return _quadratic(distance.terms, weights) / _quadratic(distance.counted, weights)
        if metric == "motion over real":
            ratio = values["motion"] / real["motion"].clamp(min=1e-6)
            return torch.tensor([weighted_median(ratio, row) for row in weights], dtype=torch.float64)
        if metric == "drift over real":
            return (weights @ values["drift"].double()) / (weights @ real["drift"].double())
        name = "centre_psnr" if metric == "centre frame, dB" else "prompted"
        return (weights @ values[name].double()) / weights.sum(1)

    def mean(self, metric: str, cell: Cell) -> Estimate:
        """Return the mean over seeds."""
        return estimate(*self.of(metric, cell), self._keys(metric))

    def difference(self, metric: str, cell: Cell, other: Cell) -> Estimate:
        """Return the mean difference of two cells, paired by seed and key."""
        (a, a_rows), (b, b_rows) = self.of(metric, cell), self.of(metric, other)
        return estimate([x - y for x, y in zip(a, b, strict=True)], a_rows - b_rows, self._keys(metric))

    def _keys(self, metric: str) -> int:
        keys = self.measured.prompted_keys if metric == "prompted motion" else self.measured.keys
        return len(set(keys))


def _quadratic(matrix: Tensor, weights: Tensor) -> Tensor:
    return ((weights @ matrix.double()) * weights).sum(1)


@dataclass(frozen=True)
class Comparison:
    """Two rows of a table in one metric.

    Attributes:
        metric: what is compared.
        row, other: the rows.
        difference: the first minus the second.
        p: two-sided, corrected for the number of comparisons in its family (Holm).
        family: CLAIMS or OTHERS.
    """

    metric: str
    row: str
    other: str
    difference: Estimate
    p: float
    family: str


def compare(table: Table, found: Statistics) -> list[Comparison]:
    """Compare the paper's claims in kernel distance, then every row with the baseline in every metric.

    Each of the two is a family that is corrected by itself, so that a claim is not drowned by what was not claimed.
    """
    claims = [(KERNEL, *_from_baseline(claim, table.baseline)) for claim in table.claims]
    rows = [row for row in table.rows if row != table.baseline]
    others = [(metric, row, table.baseline) for metric in DIGITS for row in rows]
    others = [one for one in others if one not in claims]
    return [*_corrected(claims, CLAIMS, table, found), *_corrected(others, OTHERS, table, found)]


def _from_baseline(pair: tuple[str, str], baseline: str) -> tuple[str, str]:
    return pair[::-1] if pair[0] == baseline else pair


def _corrected(
    asked: Sequence[tuple[str, str, str]], family: str, table: Table, found: Statistics
) -> list[Comparison]:
    differences = [found.difference(metric, table.rows[a], table.rows[b]) for metric, a, b in asked]
    corrected = holm([one.p for one in differences])
    return [Comparison(*one, d, p, family) for one, d, p in zip(asked, differences, corrected, strict=True)]


def report(name: str, found: Statistics) -> str:
    """Return a table of the paper in Markdown: means, differences, and what becomes of the paper's order."""
    table = TABLES[name]
    compared = compare(table, found)
    by_row = {(one.metric, one.row): one for one in compared if one.other == table.baseline}
    head = f"| | {' | '.join(DIGITS)} |\n|---|{'---|' * len(DIGITS)}"
    means = [
        f"| {row} | {' | '.join(_shown(found.mean(metric, cell), digits) for metric, digits in DIGITS.items())} |"
        for row, cell in table.rows.items()
    ]
    differences = [
        f"| {row} | {' | '.join(_compared(by_row[metric, row], digits) for metric, digits in DIGITS.items())} |"
        for row in table.rows
        if row != table.baseline
    ]
    seeds = len(next(iter(found.measured.runs.values())))
    return "\n".join(
        [
            f"### {table.title}",
            f"Means over {seeds} seeds, with 95% intervals over seeds and motion keys.\n"
            if seeds > 1
            else "One seed, with 95% intervals over motion keys alone: what differs may be due to the seed.\n",
            head,
            *means,
            f"\nDifferences from *{table.baseline}*, paired by seed and clip. {_families(compared)}\n",
            head,
            *differences,
            *(["", *(_claim(claim, compared) for claim in table.claims)] if table.claims else []),
        ]
    )


def _families(compared: Sequence[Comparison]) -> str:
    """Say for how many comparisons p is corrected, and that the intervals are not."""
    claims = sum(one.family == CLAIMS for one in compared)
    rest = f"{len(compared) - claims} {'other ' * bool(claims)}comparisons"
    parts = (
        f"the paper's {claims} claims in kernel distance and, apart, for the {rest}"
        if claims
        else f"the {rest}"
    )
    return f"p is corrected (Holm) for {parts}; the intervals beside it are not corrected."


def _shown(one: Estimate, digits: int) -> str:
    low, high = one.interval
    return f"{one.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _compared(one: Comparison, digits: int) -> str:
    low, high = one.difference.interval
    bold = "**" if one.p < SIGNIFICANT else ""
    return f"{bold}{one.difference.value:+.{digits}f}{bold} [{low:+.{digits}f}, {high:+.{digits}f}], p {one.p:.2g}"


def _claim(claim: tuple[str, str], compared: Sequence[Comparison]) -> str:
    """Say whether a pair is in the paper's order by kernel distance, lower being better."""
    better, worse = claim
    (one,) = (c for c in compared if c.metric == KERNEL and {c.row, c.other} == {better, worse})
    difference = one.difference.value if one.row == better else -one.difference.value
    if one.p >= SIGNIFICANT:
        verdict = "no difference can be told"
    else:
        verdict = "as in the paper" if difference < 0 else "**the opposite of the paper**"
    return f"- *{better}* against *{worse}*: {difference:+.2f}, p {one.p:.2g}: {verdict}."


def figures(names: Sequence[str], found: Statistics) -> dict[str, Any]:
    """Return all numbers of the tables as JSON values."""
    return {
        name: {
            "means": {
                row: {metric: _numbers(found.mean(metric, cell)) for metric in DIGITS}
                for row, cell in TABLES[name].rows.items()
            },
            "comparisons": [
                {
                    "metric": one.metric,
                    "row": one.row,
                    "other": one.other,
                    "p_holm": one.p,
                    "family": one.family,
                }
                | _numbers(one.difference)
                for one in compare(TABLES[name], found)
            ],
        }
        for name in names
    }


def _numbers(one: Estimate) -> dict[str, float]:
    low, high = one.interval
    return {"value": one.value, "low": low, "high": high, "p": one.p}


def plot_fig6(found: Statistics, target: Path) -> None:
    """Draw kernel distance and motion over gamma, one line for each lambda, with 95% intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    shift: Callable[[int], float] = lambda place: 0.0012 * (place - 1)  # noqa: E731
    for column, metric in enumerate((KERNEL, "motion over real"), start=1):
        axes = figure.add_subplot(1, 2, column)
        for place, lambda_ in enumerate(LAMBDAS):
            rows = [TABLES["fig6"].rows[grid_row(lambda_, gamma)] for gamma in GAMMAS]
            means = [found.mean(metric, cell) for cell in rows]
            reach = [[m.value - m.interval[0] for m in means], [m.interval[1] - m.value for m in means]]
            axes.errorbar(
                [gamma + shift(place) for gamma in GAMMAS],
                [m.value for m in means],
                yerr=reach,
                label=f"lambda {lambda_:g}",
                marker="o",
                capsize=3,
            )
        axes.set(xlabel="gamma", ylabel=metric, xticks=GAMMAS)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_write(target) as part:
        figure.savefig(part, format="png", dpi=120)
