"""Distances between two sets of videos by their features: an unbiased kernel distance and the Frechet distance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return the Frechet distance of features (n, d) and (m, d), in float64.

    It is |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), with the covariances C. With I3D features this is
    FVD (Unterthiner et al. 2018, arXiv 1812.01717). It is biased upwards for small n, so compare only sets of equal
    size. There may be fewer clips than features: with C = A'A the trace of the root is the sum of the singular values
    of A_x A_y', and no root of a singular matrix is needed.

    Raises:
        ValueError: the widths differ, or there are fewer than two rows.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features {tuple(x.shape)} and {tuple(y.shape)} have no Frechet distance")
    x, y = x.double(), y.double()
    a, b = _covariance_root(x), _covariance_root(y)
    means = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    traces = a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()
    return float(means + traces)


def _covariance_root(x: Tensor) -> Tensor:
    """Return A (min(n, d), d) such that A'A is the covariance of x (n, d)."""
    centred = (x - x.mean(dim=0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R
