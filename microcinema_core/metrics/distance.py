"""Distances between two sets of videos by their features: an unbiased kernel distance and the Frechet distance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 512
"""Rows of a kernel matrix that are computed at a time."""


def kernel_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Return the kernel (1 + x.y / d)^3 of features (n, d) and (m, d), (n, m) in float64.

    It is the kernel of KID (Binkowski et al. 2018, arXiv 1801.01401).
    """
    return (1 + x.double() @ y.double().T / x.shape[1]) ** 3


class KernelDistance:
    """Unbiased squared maximum mean discrepancy of paired features (Gretton et al. 2012), weighted by clip.

    Row i of both sets belongs to one clip, for example to one centre frame, so the two are not independent. The
    estimator therefore never compares clips of one key, which includes the two of a pair. All other rows are
    independent. Keys that a bootstrap resample repeats are still one key, so they add no bias. The value may be
    negative.
    """

    def __init__(self, real: Tensor, made: Tensor, keys: Sequence[str]) -> None:
        """Compare features `real` and `made`, (n, d) each, of n pairs with these group keys.

        Raises:
            ValueError: shapes or counts differ, or there are fewer than two keys.
        """
        if real.shape != made.shape or real.ndim != 2 or len(keys) != len(real):
            raise ValueError(
                f"features {tuple(real.shape)} and {tuple(made.shape)} with {len(keys)} keys are no pairs"
            )
        if len(set(keys)) < 2:
            raise ValueError("a kernel distance needs clips of at least two keys")
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        key = torch.tensor([numbers[k] for k in keys])
        cross = kernel_matrix(real, made)
        self.counted = (key[:, None] != key[None, :]).double()
        self.terms = self.counted * (kernel_matrix(real, real) + kernel_matrix(made, made) - cross - cross.T)

    def value(self, weights: Tensor | None = None) -> float:
        """Return the distance, with clips weighted by `weights` (n,), such as multiplicities in a resample.

        Raises:
            ValueError: all weight lies on one key.
        """
        w = torch.ones(len(self.terms)) if weights is None else weights
        w = w.to(self.terms)
        total = float(w @ self.counted @ w)
        if total <= 0:
            raise ValueError("a kernel distance needs weight on clips of at least two keys")
        return float(w @ self.terms @ w) / total


def kernel_distances(
    real: Tensor,
    made: Tensor,
    real_keys: Sequence[str],
    made_keys: Sequence[str],
    real_weights: Tensor,
    made_weights: Tensor,
) -> Tensor:
    """Return unbiased squared maximum mean discrepancies of two sets of any sizes, one for each row of weights, (r,).

    As in `KernelDistance`, clips of one key are never compared, be they of one set or of both. The kernel is computed
    in blocks, so memory grows with the number of clips and not with its square.

    Args:
        real, made: features, (n, d) and (m, d).
        real_keys, made_keys: the group of each clip.
        real_weights, made_weights: multiplicities of the clips, (r, n) and (r, m); ones for the value itself.

    Raises:
        ValueError: a set has clips of fewer than two keys, or a row has no weight on two keys.
    """
    numbers = {key: number for number, key in enumerate(dict.fromkeys((*real_keys, *made_keys)))}
    sets = [
        (features.double(), torch.tensor([numbers[key] for key in keys]), weights.double())
        for features, keys, weights in ((real, real_keys, real_weights), (made, made_keys, made_weights))
    ]
    x, y = sets
    return _mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y)


FeatureSet = tuple[Tensor, Tensor, Tensor]
"""Features (n, d), key numbers (n,), and weights (r, n)."""


def _mean_kernel(x: FeatureSet, y: FeatureSet) -> Tensor:
    """Return the weighted mean of the kernel over pairs of different keys, (r,)."""
    total = x[2].new_zeros(len(x[2]))
    weight = x[2].new_zeros(len(x[2]))
    for rows in torch.arange(len(x[0])).split(BLOCK):
        counted = (x[1][rows, None] != y[1][None, :]).double()
        terms = counted * kernel_matrix(x[0][rows], y[0])
        w = x[2][:, rows]
        total += (w * (y[2] @ terms.T)).sum(1)
        weight += (w * (y[2] @ counted.T)).sum(1)
    if (weight <= 0).any():
        raise ValueError("a kernel distance needs clips of at least two keys in each set")
    return total / weight


def frechet_distance(
    x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
) -> float:
    """Return the Frechet distance of features (n, d) and (m, d), in float64.

    It is |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), with the covariances C. With I3D features this is
    FVD (Unterthiner et al. 2018, arXiv 1812.01717). It is biased upwards for small n, so compare only sets of equal
    size. There may be fewer clips than features: with C = A'A the trace of the root is the sum of the singular values
    of A_x A_y', and no root of a singular matrix is needed.

    Args:
        x, y: features of the two sets.
        x_weights, y_weights: multiplicities of the clips, (n,) and (m,), as in a resample; None counts each once.

    Raises:
        ValueError: the widths differ, or there are fewer than two rows.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features {tuple(x.shape)} and {tuple(y.shape)} have no Frechet distance")
    mean_x, a = _moments(x.double(), x_weights)
    mean_y, b = _moments(y.double(), y_weights)
    traces = a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()
    distance = (mean_x - mean_y).square().sum() + traces
    return float(distance.clamp(min=0))  # rounding takes that of equal sets below 0; NaN stays NaN


def _moments(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mean of x (n, d), and A (min(n, d), d) such that A'A is its covariance."""
    w = torch.ones(len(x), dtype=x.dtype) if weights is None else weights.to(x.dtype)
    total = w.sum()
    mean = w @ x / total
    centred = (w / (total - 1)).sqrt()[:, None] * (x - mean)
    return mean, torch.linalg.qr(centred, mode="r").R
