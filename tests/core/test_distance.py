"""Distances between sets of features, and their intervals."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from microcinema_core.metrics.bootstrap import (
    interval,
    key_weights,
    weighted_mean,
    weighted_median,
)
from microcinema_core.metrics.distance import KernelDistance, frechet_distance, kernel_matrix


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_the_kernel_is_the_cubic_polynomial() -> None:
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0], [0.0, 4.0]])
    assert kernel_matrix(x, y).tolist() == [[1.5**3, 5.0**3]]
    assert kernel_matrix(x, y).dtype == torch.float64


def test_the_kernel_distance_is_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, w = draw(generator, 5, 3), draw(generator, 5, 3), torch.tensor([1.0, 2.0, 0.0, 1.0, 3.0])
    keys = ["a", "b", "a", "c", "b"]
    k = lambda a, b: float((1 + a @ b / 3) ** 3)  # noqa: E731
    total = weight = 0.0
    for i in range(5):
        for j in range(5):
            if keys[i] != keys[j]:
                h = k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i])
                total, weight = total + float(w[i] * w[j]) * h, weight + float(w[i] * w[j])
    assert KernelDistance(x, y, keys).value(w) == pytest.approx(total / weight)


def test_the_kernel_distance_is_unbiased_where_all_pairs_are_not() -> None:
    generator = torch.Generator().manual_seed(1)
    fair, biased = [], []
    for _ in range(400):
        shared = draw(generator, 8, 4)  # the part that the two clips of a pair share, like a centre frame
        x, y = shared + draw(generator, 8, 4), shared + draw(generator, 8, 4)
        fair.append(KernelDistance(x, y, [str(i) for i in range(8)]).value())
        square = kernel_matrix(x, x) + kernel_matrix(y, y) - kernel_matrix(x, y) - kernel_matrix(y, x)
        biased.append(float(square.mean()))
    values, others = torch.tensor(fair), torch.tensor(biased)
    error = float(values.std()) / 20
    assert abs(float(values.mean())) < 3 * error
    assert float(others.mean()) > 10 * error


def test_the_bootstraps_repeated_keys_add_no_bias() -> None:
    generator = torch.Generator().manual_seed(2)
    keys = [str(i // 2) for i in range(24)]
    gaps = []
    for seed in range(60):
        distance = KernelDistance(draw(generator, 24, 4), draw(generator, 24, 4), keys)
        resampled = [distance.value(w) for w in key_weights(keys, 20, seed)]
        gaps.append(sum(resampled) / 20 - distance.value())
    values = torch.tensor(gaps)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 60**0.5


def test_the_kernel_distance_sees_a_difference() -> None:
    generator = torch.Generator().manual_seed(3)
    x, keys = draw(generator, 40, 4), [str(i) for i in range(40)]
    near, far = (KernelDistance(x, draw(generator, 40, 4) + shift, keys).value() for shift in (1.0, 2.0))
    assert 0 < near < far


def test_sets_that_are_no_pairs_are_refused() -> None:
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match="no pairs"):
        KernelDistance(x, x[:2], ["a", "b", "c"])
    with pytest.raises(ValueError, match="at least two keys"):
        KernelDistance(x, x, ["a", "a", "a"])
    with pytest.raises(ValueError, match="at least two keys"):
        KernelDistance(x, x, ["a", "a", "b"]).value(torch.tensor([1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="Frechet"):
        frechet_distance(x, x[:1])


def test_frechet_distance_of_sets_with_known_moments() -> None:
    generator = torch.Generator().manual_seed(4)
    rows = draw(generator, 200, 3)
    rows = (rows - rows.mean(dim=0)) / 199**-0.5
    white = torch.linalg.qr(rows)[0] * 199**0.5  # covariance 1, mean 0
    scale, shift = torch.tensor([2.0, 3.0, 0.5]), torch.tensor([1.0, 0.0, -2.0])
    # For covariances 1 and S^2 the trace term is the sum of (s - 1)^2.
    assert frechet_distance(white, white * scale + shift) == pytest.approx(5 + 1 + 4 + 0.25)


def test_frechet_distance_of_fewer_clips_than_features() -> None:
    generator = torch.Generator().manual_seed(5)
    x, y = draw(generator, 6, 50), draw(generator, 9, 50)
    roots = torch.linalg.eigvals(torch.cov(x.T) @ torch.cov(y.T)).real.clamp(min=0).sqrt().sum()
    traces = torch.cov(x.T).trace() + torch.cov(y.T).trace()
    expected = (x.mean(dim=0) - y.mean(dim=0)).square().sum() + traces - 2 * roots
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-5)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_clips_share_their_keys_multiplicity() -> None:
    keys = ["a", "b", "a", "c"]
    weights = key_weights(keys, 50, seed=0)
    assert weights.shape == (50, 4)
    assert torch.equal(weights[:, 0], weights[:, 2])
    assert (weights[:, [0, 1, 3]].sum(dim=1) == 3).all(), "as many keys as there are"
    assert torch.equal(weights, key_weights(keys, 50, seed=0))
    assert not torch.equal(weights, key_weights(keys, 50, seed=1))
    assert float(key_weights(keys, 4000, seed=2).mean()) == pytest.approx(1, abs=0.05)


def test_the_interval_covers_the_mean_of_keys_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(6)
    keys = [str(i // 3) for i in range(120)]
    covered = 0
    for seed in range(150):
        # Three clips of a key are nearly one; an interval over clips would be far too narrow.
        values = draw(generator, 40).repeat_interleave(3) + 0.1 * draw(generator, 120) + 5
        low, high = interval(partial(weighted_mean, values), key_weights(keys, 200, seed))
        covered += low < 5 < high
    assert 0.87 <= covered / 150 <= 0.99


def test_weighted_median_and_mean() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 10.0])
    ones = torch.ones(4)
    assert weighted_median(values, ones) == 2.5
    assert weighted_median(values[:3], ones[:3]) == 2
    assert weighted_median(values, torch.tensor([1.0, 1.0, 0.0, 5.0])) == 10
    assert weighted_median(values, torch.tensor([1.0, 2.0, 0.0, 1.0])) == 2, "as of 1, 1, 3, 10"
    assert weighted_mean(values, torch.tensor([1.0, 1.0, 0.0, 2.0])) == 6
    for function in (weighted_mean, weighted_median):
        with pytest.raises(ValueError):
            function(values, torch.zeros(4))
