"""Bootstrap intervals over groups of clips: clips of one key are alike, so whole keys are resampled, not clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


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


def interval(statistic: Callable[[Tensor], float], weights: Tensor) -> tuple[float, float]:
    """Return the 95% percentile interval of a statistic.

    Args:
        statistic: function that maps clip weights (n,) to a number.
        weights: one row per resample, (resamples, n).
    """
    values = torch.tensor([statistic(row) for row in weights], dtype=torch.float64)
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
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
