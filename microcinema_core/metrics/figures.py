"""Figures from measured values: a number with its interval, what to compare it with, and what limits it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .bootstrap import interval, key_weights, paired_key_weights, percentiles, spread_around, weighted_mean
from .distance import frechet_distance, kernel_distances
from .feature_cache import Measured
from .inception_score import inception_score

PUBLISHED = (
    "FVD, KVD and IS compare only between runs with the same network, resize, frames, rate and counts. Figures of the "
    "mini models' emoji, or of another I3D, say nothing beside published ones."
)
AMPLE = 10
"""Clips per feature above which the bias of FVD is no longer pointed out."""
LEAST_KEYS = 3
"""Keys of a set below which a figure has no interval: resamples of fewer hardly differ, or not at all."""
LEAST_PART = 20
"""Least clips of a part of the Inception Score; with fewer, all clips are one part."""


@dataclass(frozen=True)
class Bootstrap:
    """Number of resamples, and the seed of their draws."""

    resamples: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """One number of the report.

    Attributes:
        name: the metric.
        value: the number for the made videos.
        low, high: its 95% bootstrap interval over keys; None where there are fewer than LEAST_KEYS.
        reference: the same for something known, to compare with; None if there is nothing.
        reference_name: what that is.
        made, real: numbers of clips.
        keys: number of keys that the interval comes from, of the set with fewer where it comes from both.
        network: what the values were measured with.
        note: what limits the figure.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    reference: float | None
    reference_name: str
    made: int
    real: int
    keys: int
    network: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def fvd(real: Measured, made: Measured, network: str, bootstrap: Bootstrap) -> Figure:
    """Return the Frechet video distance, beside that of two halves of the real clips."""
    x, y = real.values, made.values
    value = frechet_distance(x, y)
    draws = paired_key_weights(real.keys, made.keys, bootstrap.resamples, bootstrap.seed)
    resampled = [
        frechet_distance(x, y, *pair)
        for pair in watched(zip(*draws, strict=True), bootstrap.resamples, "FVD interval")
    ]
    low, high = spread_around(value, torch.tensor(resampled, dtype=torch.float64), least=0.0)
    halves = halves_of(real, bootstrap.seed)
    floor = frechet_distance(*halves) if halves else None
    name = f"two halves of REAL, {len(halves[0])} + {len(halves[1])} clips" if halves else ""
    note = bias_note(min(len(x), len(y)), x.shape[1])
    keys = _keys(real, made)
    return Figure("FVD", value, *_if_known(low, high, keys), floor, name, len(y), len(x), keys, network, note)


def kvd(real: Measured, made: Measured, network: str, bootstrap: Bootstrap) -> Figure:
    """Return the unbiased kernel video distance; its resamples have two keys of each set, as it compares keys.

    Raises:
        ValueError: a set has clips of one key only.
    """
    draws = paired_key_weights(real.keys, made.keys, bootstrap.resamples, bootstrap.seed, least_keys=2)
    ones = (torch.ones(1, len(measured.keys), dtype=torch.float64) for measured in (real, made))
    weights = (torch.cat([one, drawn]) for one, drawn in zip(ones, draws, strict=True))
    value, *resampled = kernel_distances(real.values, made.values, real.keys, made.keys, *weights).tolist()
    low, high = percentiles(torch.tensor(resampled, dtype=torch.float64))
    note = "unbiased for any number of clips; may be below 0 where the sets are alike"
    keys = _keys(real, made)
    return Figure(
        "KVD", value, *_if_known(low, high, keys), 0.0, "the same distribution",
        len(made.keys), len(real.keys), keys, network, note,
    )  # fmt: skip


def inception(real: Measured, made: Measured, network: str, bootstrap: Bootstrap, *, splits: int) -> Figure:
    """Return the Inception Score of class probabilities, beside that of the real clips where there are some.

    Each set is split by its own number of clips, so that the score of the made clips depends on them alone.
    """
    count, part = _parts(len(made.keys), splits)
    statistic = partial(inception_score, made.values, splits=count)
    value = statistic()
    draws = key_weights(made.keys, bootstrap.resamples, bootstrap.seed)
    low, high = spread_around(value, torch.tensor([statistic(weights=row) for row in draws]))
    classes = made.values.shape[1]
    note = (
        f"{count} x {part} clips for {classes} classes: at most {min(classes, part)}; fewer clips give less"
    )
    reference, beside = _real_score(real, splits, (count, part)) if real.keys else (None, "")
    keys = _keys(made)
    return Figure(
        "IS", value, *_if_known(low, high, keys), reference, beside,
        len(made.keys), len(real.keys), keys, network, note,
    )  # fmt: skip


def _real_score(real: Measured, splits: int, made_parts: tuple[int, int]) -> tuple[float, str]:
    """Return the score of the real clips and its name, which has the parts where they are not those of MADE."""
    count, part = _parts(len(real.keys), splits)
    name = "REAL" if (count, part) == made_parts else f"REAL, {count} x {part} clips"
    return inception_score(real.values, splits=count), name


def _parts(clips: int, splits: int) -> tuple[int, int]:
    """Return the number of parts of an Inception Score, and the clips of each."""
    count = splits if clips >= LEAST_PART * splits else 1
    return count, clips // count


def mean(
    name: str,
    real: Measured,
    made: Measured,
    network: str,
    bootstrap: Bootstrap,
    *,
    column: int = 0,
    note: str = "",
) -> Figure:
    """Return the mean of a value over the made clips, beside that over the real ones."""
    values = made.values[:, column]
    statistic = partial(weighted_mean, values)
    low, high = interval(statistic, key_weights(made.keys, bootstrap.resamples, bootstrap.seed))
    there = bool(real.keys)
    reference = float(real.values[:, column].double().mean()) if there else None
    keys = _keys(made)
    return Figure(
        name, float(values.double().mean()), *_if_known(low, high, keys), reference, "REAL" if there else "",
        len(made.keys), len(real.keys), keys, network, note,
    )  # fmt: skip


def _keys(*sets: Measured) -> int:
    """Return the number of keys of the set that has fewest."""
    return min(len(set(one.keys)) for one in sets)


def _if_known(low: float, high: float, keys: int) -> tuple[float | None, float | None]:
    """Return an interval, without bounds where it comes from too few keys."""
    return (low, high) if keys >= LEAST_KEYS else (None, None)


def bias_note(clips: int, features: int) -> str:
    """Return how much the number of clips biases a Frechet distance upwards, in words."""
    counts = f"{clips} clips for {features} features"
    if clips <= features:
        return f"{counts}: far too few, so FVD is far too high; rely on KVD"
    return f"{counts}: too high; compare equal counts only" if clips < AMPLE * features else counts


def halves_of(measured: Measured, seed: int) -> tuple[Tensor, Tensor] | None:
    """Split a set into two halves by key; None where there are too few keys or clips."""
    keys = list(dict.fromkeys(measured.keys))
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
    first = {keys[place] for place in order[: len(keys) // 2]}
    here = torch.tensor([key in first for key in measured.keys])
    halves = measured.values[here], measured.values[~here]
    return halves if min(len(half) for half in halves) >= 2 else None


def watched(items: Iterable[Any], total: int, title: str) -> Iterable[Any]:
    """Return the items with a progress bar where stderr is a terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=title, disable=not sys.stderr.isatty())


def table(figures: Sequence[Figure]) -> str:
    """Format figures as a Markdown table, with the networks below it."""
    lines = ["| metric | MADE [95%] | for comparison | clips made / real | note |", "|---|---|---|---|---|"]
    networks: dict[str, list[str]] = {}
    for figure in figures:
        shown = with_interval(figure, _digits)
        beside = "" if figure.reference is None else f"{_digits(figure.reference)} ({figure.reference_name})"
        lines.append(
            f"| {figure.name} | {shown} | {beside} | {figure.made} / {figure.real} | {figure.note} |"
        )
        networks.setdefault(figure.network, []).append(figure.name)
    lines += ["", *(f"{', '.join(names)}: {network}" for network, names in networks.items())]
    return "\n".join(lines)


def with_interval(figure: Figure, digits: Callable[[float], str]) -> str:
    """Return a figure's value with its interval, such as `1.20 [1.10, 1.30]`, as `digits` writes numbers."""
    if figure.low is None or figure.high is None:
        return f"{digits(figure.value)} [no interval]"
    return f"{digits(figure.value)} [{digits(figure.low)}, {digits(figure.high)}]"


def _digits(value: float) -> str:
    """Format with two decimals, small numbers with four."""
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
