"""Bootstrap intervals over groups of clips: clips of one key are alike, so whole keys are resampled, not clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SEEDS = 3
"""Seeds that one draw of two sets takes: for the keys that both have, and for those of each alone."""


def key_weights(keys: Sequence[str], resamples: int, seed: int) -> Tensor:
    """Draw the multiplicities of n clips in each resample, (resamples, n), float64.

    Each resample draws as many keys as there are, with replacement.

    Args:
        keys: the group of each clip, for example its motion or its source video.
        resamples: number of resamples.
        seed: seed of the draws.

    Raises:
        ValueError: there are no clips.
    """
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    if not numbers:
        raise ValueError("there are no keys to draw from")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(numbers), (resamples, len(numbers)), generator=generator)
    counts = torch.zeros(drawn.shape, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones_like(counts))
    return counts[:, [numbers[key] for key in keys]]


def paired_key_weights(
    real: Sequence[str], made: Sequence[str], resamples: int, seed: int, *, least_keys: int = 1
) -> tuple[Tensor, Tensor]:
    """Draw the multiplicities of the clips of two sets, (resamples, n) and (resamples, m), float64.

    Keys that both sets have are drawn once for both, as their clips belong together. Keys of one set alone are drawn by
    themselves, so every resample has as many keys of each kind as there are.

    Args:
        real, made: the group of each clip.
        resamples: number of resamples.
        seed: seed of the draws.
        least_keys: different keys of each set in every resample, for statistics that fewer do not define; a resample
            with fewer is drawn again.

    Raises:
        ValueError: a set has no clips, or fewer keys than that.
    """
    if min(len(set(real)), len(set(made))) < least_keys:
        raise ValueError(
            f"sets of {len(set(real))} and {len(set(made))} keys cannot be resampled; each needs {least_keys}"
        )
    weights = _paired_once(real, made, resamples, seed)
    while len(few := _with_few_keys(real, made, weights, least_keys)):
        seed += SEEDS
        for kept, drawn in zip(weights, _paired_once(real, made, len(few), seed), strict=True):
            kept[few] = drawn
    return weights


def _paired_once(
    real: Sequence[str], made: Sequence[str], resamples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Draw as `paired_key_weights`, with the seeds from `seed` to below `seed + SEEDS`."""
    both = set(real) & set(made)
    drawn: dict[str, Tensor] = {}
    for place, chosen in enumerate((both, set(real) - both, set(made) - both)):
        if keys := [key for key in dict.fromkeys((*real, *made)) if key in chosen]:
            weights = key_weights(keys, resamples, seed + place)
            drawn |= {key: weights[:, number] for number, key in enumerate(keys)}
    return torch.stack([drawn[key] for key in real], 1), torch.stack([drawn[key] for key in made], 1)


def _with_few_keys(
    real: Sequence[str], made: Sequence[str], weights: tuple[Tensor, Tensor], least: int
) -> Tensor:
    """Return the indices of the resamples in which a set has fewer than `least` different keys, (k,)."""
    few = torch.zeros(len(weights[0]), dtype=torch.bool)
    for keys, drawn in zip((real, made), weights, strict=True):
        one_clip = {key: place for place, key in enumerate(keys)}  # all clips of a key have one weight
        few |= (drawn[:, list(one_clip.values())] > 0).sum(1) < least
    return few.nonzero()[:, 0]


def spread_around(value: float, resampled: Tensor, *, least: float = -math.inf) -> tuple[float, float]:
    """Return a 95% interval as wide as the resamples' spread, around the value instead of their mean.

    For statistics that a resample's repeated clips shift, such as the Frechet distance: the shift is no uncertainty.

    Args:
        value: the statistic of all clips.
        resampled: the statistic of each resample, (resamples,).
        least: the least value that the statistic can have; the interval does not go below it.
    """
    shift = value - float(resampled.double().mean())
    low, high = percentiles(resampled)
    return max(low + shift, least), max(high + shift, least)


def interval(statistic: Callable[[Tensor], float], weights: Tensor) -> tuple[float, float]:
    """Return the 95% percentile interval of a statistic.

    Args:
        statistic: function that maps clip weights (n,) to a number.
        weights: one row per resample, (resamples, n).
    """
    return percentiles(torch.tensor([statistic(row) for row in weights], dtype=torch.float64))


def percentiles(resampled: Tensor) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile of the resamples' statistics (resamples,)."""
    low, high = torch.quantile(resampled.double(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def weighted_mean(values: Tensor, weights: Tensor) -> float:
    """Return the mean of values (n,) with weights (n,) of 0 or more.

    Raises:
        ValueError: the shapes differ, or all weights are 0.
    """
    values, weights = _checked(values, weights)
    return float((values * weights).sum() / weights.sum())


def weighted_median(values: Tensor, weights: Tensor) -> float:
    """Return the median of values (n,) with weights (n,) of 0 or more.

    Half the weight lies on either side; if the boundary falls between two values, their mean is returned.

    Raises:
        ValueError: the shapes differ, or all weights are 0.
    """
    values, weights = _checked(values, weights)
    values, order = values[weights > 0].sort()
    share = weights[weights > 0][order].cumsum(dim=0)
    half = share[-1] / 2
    low = int(torch.searchsorted(share, half))
    high = int(torch.searchsorted(share, half, right=True))
    return float(values[low] + values[high]) / 2


def _checked(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    if values.ndim != 1 or values.shape != weights.shape or not (weights > 0).any():
        raise ValueError(f"{tuple(values.shape)} values and {tuple(weights.shape)} weights have no mean")
    return values.double(), weights.double()
