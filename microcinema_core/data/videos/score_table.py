"""Scores as parquet files, one row a clip, and the thresholds and histograms that are made from them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...files.atomic import atomic_write

PARQUET = b"PAR1"
"""First and last bytes of a parquet file."""

ScoreRow = dict[str, Any]
"""A clip: its video, captions, bucket, the fields of its `Window`, and its scores as `score_NAME`."""


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("scores are stored as parquet files: pip install pyarrow") from error
    return pyarrow


def _schema(scores: Sequence[str]) -> Any:
    arrow = _arrow()
    text, number = arrow.string(), arrow.float64()
    plain = {"clip_id": text, "video": text, "group": text, "role": text, "bucket": text}
    numbers = {"rate": number, "fps": number, "start": number, "seconds": number, "scene": arrow.int32()}
    lists = {"pts": arrow.list_(arrow.int64()), "captions": arrow.list_(text)}
    return arrow.schema({**plain, **numbers, **lists, **{f"score_{name}": number for name in scores}})


def write_rows(path: Path, rows: Sequence[ScoreRow], scores: Sequence[str]) -> None:
    """Write the clips of one unit atomically; `scores` are the names of their scores."""
    arrow = _arrow()
    with atomic_write(path) as part:
        arrow.parquet.write_table(arrow.Table.from_pylist(list(rows), schema=_schema(scores)), part)


def is_whole(path: Path) -> bool:
    """Return whether a parquet file has a start and an end; a machine that went down may leave half of one."""
    try:
        with path.open("rb") as file:
            start = file.read(len(PARQUET))
            file.seek(-len(PARQUET), os.SEEK_END)
            return start == file.read(len(PARQUET)) == PARQUET
    except OSError:
        return False


def read_rows(path: Path) -> list[ScoreRow]:
    """Read the clips of one unit."""
    return _arrow().parquet.read_table(path).to_pylist()


def read_columns(paths: Iterable[Path], scores: Sequence[str]) -> dict[str, np.ndarray]:
    """Read role, rate and scores of all clips, which is what thresholds need: some hundred MB for 10 million."""
    arrow = _arrow()
    names = ["role", "rate", *(f"score_{name}" for name in scores)]
    tables = [arrow.parquet.read_table(path, columns=names) for path in paths]
    if not tables:
        return {name.removeprefix("score_"): np.array([]) for name in names}
    table = arrow.concat_tables(tables)
    return {name.removeprefix("score_"): table.column(name).to_numpy(zero_copy_only=False) for name in names}


@dataclass(frozen=True)
class Threshold:
    """A value, or a quantile of all clips of one role and rate."""

    value: float
    quantile: bool = False


@dataclass(frozen=True)
class KeepRule:
    """The condition low <= score <= high, where None is unbounded."""

    score: str
    low: Threshold | None
    high: Threshold | None


PRESETS = {"webvid": "motion:0.1q..0.9q,clip:0.1q.."}
"""Named ranges. `webvid` is the form of the paper's filter (section 4), which leaves out pairs of low CLIP score and of
very little or much motion. Its thresholds are not given: these leave out a tenth at each of the three ends."""


def parse_keep(text: str) -> list[KeepRule]:
    """Parse ranges of scores, such as `motion:0.1q..0.9q,clip:0.25..`, or a name of PRESETS.

    A `q` makes a number a quantile.

    Raises:
        ValueError: the text has another form.
    """
    text = PRESETS.get(text.strip(), text)
    number = r"(-?(?:\d+(?:\.\d+)?|\.\d+)q?)?"
    form = re.compile(rf"\s*(\w+)\s*:\s*{number}\s*\.\.\s*{number}\s*")
    rules = []
    for part in filter(str.strip, text.split(",")):
        match = form.fullmatch(part)
        if not match or (match[2] is None and match[3] is None):
            raise ValueError(
                f"keep {part!r}: expected SCORE:LOW..HIGH, as in motion:0.1q..0.9q or clip:0.25.."
            )
        rules.append(KeepRule(match[1], _threshold(match[2], part), _threshold(match[3], part)))
    return rules


def _threshold(text: str | None, part: str) -> Threshold | None:
    if text is None:
        return None
    value = float(text.removesuffix("q"))
    if text.endswith("q") and not 0 <= value <= 1:
        raise ValueError(f"keep {part!r}: a quantile is from 0 to 1, {text!r} is not")
    return Threshold(value, text.endswith("q"))


ScoreLimits = dict[tuple[str, float], dict[str, tuple[float, float]]]
"""The range of each score that is kept, by role and rate."""


def resolve_limits(columns: Mapping[str, np.ndarray], rules: Sequence[KeepRule]) -> ScoreLimits:
    """Turn rules into values. Quantiles are taken within one role and rate, as motion differs between them.

    Args:
        columns: roles, rates and scores, as `read_columns` returns them.
        rules: ranges of scores, as `parse_keep` returns them.

    Raises:
        ValueError: a rule names a score that was not computed.
    """
    measured = [name for name in columns if name not in ("role", "rate")]
    for rule in rules:
        if rule.score not in measured:
            raise ValueError(f"keep names {rule.score!r}; the scores are: {', '.join(measured)}")
    found: ScoreLimits = {}
    for role, rate in _kinds(columns):
        mine = (columns["role"] == role) & (columns["rate"] == rate)
        found[role, rate] = {
            rule.score: (
                _value(rule.low, columns[rule.score][mine], -math.inf),
                _value(rule.high, columns[rule.score][mine], math.inf),
            )
            for rule in rules
        }
    return found


def _kinds(columns: Mapping[str, np.ndarray]) -> list[tuple[str, float]]:
    """Return the pairs of role and rate that there are."""
    return sorted({(str(r), float(f)) for r, f in zip(columns["role"], columns["rate"], strict=True)})


def _value(threshold: Threshold | None, scores: np.ndarray, unbounded: float) -> float:
    if threshold is None:
        return unbounded
    if not threshold.quantile:
        return threshold.value
    finite = scores[np.isfinite(scores)]
    return float(np.quantile(finite, threshold.value)) if len(finite) else math.nan


def is_kept(row: ScoreRow, limits: ScoreLimits) -> bool:
    """Return whether a clip's scores are within the limits of its role and rate; NaN never is."""
    ranges = limits.get((row["role"], row["rate"]), {})
    return all(low <= row[f"score_{name}"] <= high for name, (low, high) in ranges.items())


def draw_histograms(
    folder: Path, columns: Mapping[str, np.ndarray], limits: ScoreLimits | None = None
) -> list[Path]:
    """Draw a PNG for each score: one curve for each role and rate, with thresholds as dashed lines.

    Returns:
        The paths of the PNGs.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("histograms need matplotlib: pip install matplotlib") from error
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in (name for name in columns if name not in ("role", "rate")):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        _draw_histogram(figure.add_subplot(), name, columns, limits or {})
        paths.append(folder / f"{name}.png")
        with atomic_write(paths[-1], suffix=".png") as part:
            figure.savefig(part, dpi=120)
    return paths


def _draw_histogram(axes: Any, name: str, columns: Mapping[str, np.ndarray], limits: ScoreLimits) -> None:
    kinds = _kinds(columns)
    for number, (role, rate) in enumerate(kinds):
        scores = columns[name][(columns["role"] == role) & (columns["rate"] == rate)]
        scores = scores[np.isfinite(scores)]
        label = f"{role}, {rate:g} fps: {len(scores)} clips"
        axes.hist(scores, bins=60, histtype="step", color=f"C{number}", label=label)
        for edge in limits.get((role, rate), {}).get(name, ()):
            if math.isfinite(edge):
                axes.axvline(edge, color=f"C{number}", linestyle="--", linewidth=1)
    axes.set(xlabel=name, ylabel="clips", title=f"{name}: what --keep chooses from")
    if kinds:
        axes.legend()
