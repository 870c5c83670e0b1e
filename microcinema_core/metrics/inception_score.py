"""Inception Score of class probabilities (Salimans et al. 2016, arXiv 1606.03498)."""

from __future__ import annotations

import torch
from torch import Tensor

SHUFFLE_SEED = 42


def inception_score(probabilities: Tensor, *, splits: int = 1, weights: Tensor | None = None) -> float:
    """Return exp(E KL(p(y|x) || p(y))), averaged over `splits` equal parts of the clips.

    The clips are shuffled before they are split, as they may be sorted by class. A part estimates p(y) from fewer
    clips, which lowers the score: compare only scores of equal counts and splits.

    Args:
        probabilities: class probabilities of each clip, `n classes`.
        splits: number of parts.
        weights: multiplicities of the clips in a bootstrap resample, (n,); None weights all alike.

    Raises:
        ValueError: there are fewer clips than parts.
    """
    n = len(probabilities)
    if n < splits or splits < 1:
        raise ValueError(f"an Inception Score of {n} clips cannot be split into {splits} parts")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SHUFFLE_SEED))
    w = torch.ones(n) if weights is None else weights
    parts = [
        _score(probabilities[part], w[part])
        for part in (order[i * n // splits : (i + 1) * n // splits] for i in range(splits))
        if w[part].sum() > 0
    ]
    return sum(parts) / len(parts)


def _score(probabilities: Tensor, weights: Tensor) -> float:
    p, w = probabilities.double(), (weights.double() / weights.double().sum())[:, None]
    marginal = (w * p).sum(0)
    divergence = torch.special.xlogy(p, p) - torch.special.xlogy(p, marginal)
    return float((w * divergence).sum().exp())


def as_probabilities(outputs: Tensor) -> Tensor:
    """Return a classifier's outputs `n classes` as probabilities: softmax, unless they are probabilities already."""
    if (outputs >= 0).all() and torch.allclose(outputs.sum(1), torch.ones(len(outputs)), atol=1e-3):
        return outputs
    return outputs.softmax(dim=1)
