"""Scores on disk: one parquet file a unit, one row a clip; thresholds and histograms are made of them afterwards."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...files.atomic import atomic_write


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("scores are kept as parquet: pip install pyarrow") from error
    return pyarrow


def _schema(scores: Sequence[str]) -> Any:
    arrow = _arrow()
    text, number = arrow.string(), arrow.float64()
    plain = {"clip_id": text, "video": text, "group": text, "role": text, "bucket": text}
    numbers = {"rate": number, "fps": number, "start": number, "seconds": number, "scene": arrow.int32()}
    lists = {"pts": arrow.list_(arrow.int64()), "captions": arrow.list_(text)}
    return arrow.schema({**plain, **numbers, **lists, **{f"score_{name}": number for name in scores}})


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], scores: Sequence[str]) -> None:
    """At once or not at all."""
    arrow = _arrow()
    with atomic_write(path) as part:
        arrow.parquet.write_table(arrow.Table.from_pylist(list(rows), schema=_schema(scores)), part)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The clips of one unit."""
    return _arrow().parquet.read_table(path).to_pylist()


def read_columns(paths: Iterable[Path], scores: Sequence[str]) -> dict[str, np.ndarray]:
    """Role, rate and scores of all clips, which is what thresholds need: 10 million take some hundred MB."""
    arrow = _arrow()
    names = ["role", "rate", *(f"score_{name}" for name in scores)]
    tables = [arrow.parquet.read_table(path, columns=names) for path in paths]
    if not tables:
        return {name.removeprefix("score_"): np.array([]) for name in names}
    table = arrow.concat_tables(tables)
    return {name.removeprefix("score_"): table.column(name).to_numpy(zero_copy_only=False) for name in names}


@dataclass(frozen=True)
class Bound:
    """A threshold: a value, or a quantile of all clips of one role and rate."""

    value: float
    quantile: bool = False


@dataclass(frozen=True)
class Keep:
    """One condition: low <= score <= high; None is open."""

    score: str
    low: Bound | None
    high: Bound | None


def parse_keep(text: str) -> list[Keep]:
    """`motion:0.1q..0.9q,clip:0.25..`: ranges by score; a `q` makes a number a quantile.

    Raises:
        ValueError: another form.
    """
    number = r"(-?(?:\d+(?:\.\d+)?|\.\d+)q?)?"
    form = re.compile(rf"\s*(\w+)\s*:\s*{number}\s*\.\.\s*{number}\s*")
    conditions = []
    for part in filter(str.strip, text.split(",")):
        match = form.fullmatch(part)
        if not match or (match[2] is None and match[3] is None):
            raise ValueError(
                f"keep {part!r}: expected SCORE:LOW..HIGH, as in motion:0.1q..0.9q or clip:0.25.."
            )
        conditions.append(Keep(match[1], _bound(match[2], part), _bound(match[3], part)))
    return conditions


def _bound(text: str | None, part: str) -> Bound | None:
    if text is None:
        return None
    value = float(text.removesuffix("q"))
    if text.endswith("q") and not 0 <= value <= 1:
        raise ValueError(f"keep {part!r}: a quantile is from 0 to 1, {text!r} is not")
    return Bound(value, text.endswith("q"))


Limits = dict[tuple[str, float], dict[str, tuple[float, float]]]
"""For each role and rate: the range of each score that is kept."""


def limits_of(columns: Mapping[str, np.ndarray], conditions: Sequence[Keep]) -> Limits:
    """Thresholds as values. Quantiles are of one role and rate, as motion is not the same thing in all of them.

    Raises:
        ValueError: a score that was not measured.
    """
    measured = [name for name in columns if name not in ("role", "rate")]
    for condition in conditions:
        if condition.score not in measured:
            raise ValueError(f"keep names {condition.score!r}; the scores are: {', '.join(measured)}")
    found: Limits = {}
    for role, rate in sorted(
        {(str(r), float(f)) for r, f in zip(columns["role"], columns["rate"], strict=True)}
    ):
        mine = (columns["role"] == role) & (columns["rate"] == rate)
        found[role, rate] = {
            one.score: (
                _value(one.low, columns[one.score][mine], -math.inf),
                _value(one.high, columns[one.score][mine], math.inf),
            )
            for one in conditions
        }
    return found


def _value(bound: Bound | None, scores: np.ndarray, otherwise: float) -> float:
    if bound is None:
        return otherwise
    if not bound.quantile:
        return bound.value
    real = scores[np.isfinite(scores)]
    return float(np.quantile(real, bound.value)) if len(real) else math.nan


def is_kept(row: Mapping[str, Any], limits: Limits) -> bool:
    """Whether a clip lies within the limits of its role and rate. NaN does not."""
    ranges = limits.get((row["role"], row["rate"]), {})
    return all(low <= row[f"score_{name}"] <= high for name, (low, high) in ranges.items())


def draw_histograms(
    folder: Path, columns: Mapping[str, np.ndarray], limits: Limits | None = None
) -> list[Path]:
    """A PNG of each score: one curve a role and rate, thresholds as dashed lines; nothing without matplotlib.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("histograms need matplotlib: pip install matplotlib") from error
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    kinds = sorted({(str(r), float(f)) for r, f in zip(columns["role"], columns["rate"], strict=True)})
    for name in (name for name in columns if name not in ("role", "rate")):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for number, (role, rate) in enumerate(kinds):
            scores = columns[name][(columns["role"] == role) & (columns["rate"] == rate)]
            scores = scores[np.isfinite(scores)]
            axes.hist(
                scores,
                bins=60,
                histtype="step",
                color=f"C{number}",
                label=f"{role}, {rate:g} fps: {len(scores)} clips",
            )
            for edge in (limits or {}).get((role, rate), {}).get(name, ()):
                if math.isfinite(edge):
                    axes.axvline(edge, color=f"C{number}", linestyle="--", linewidth=1)
        axes.set(xlabel=name, ylabel="clips", title=f"{name}: what --keep chooses from")
        if kinds:
            axes.legend()
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths
