"""Distances and scores of two sets of any sizes, against scipy, torchmetrics and their definitions."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from microcinema_core.metrics import distance, figures
from microcinema_core.metrics.bootstrap import key_weights, paired_key_weights, percentiles, spread_around
from microcinema_core.metrics.distance import KernelDistance, frechet_distance, kernel_distances
from microcinema_core.metrics.feature_cache import Measured
from microcinema_core.metrics.figures import bias_note, halves_of
from microcinema_core.metrics.inception_score import as_probabilities, inception_score


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def names(start: str, count: int) -> list[str]:
    return [f"{start}{i}" for i in range(count)]


def ones(count: int) -> Tensor:
    return torch.ones(1, count, dtype=torch.float64)


def test_frechet_distance_is_the_formula_of_published_fvd() -> None:
    x, y = draw(0, 300, 12), draw(1, 200, 12) @ draw(2, 12, 12) + 0.3
    # By the definition (Unterthiner et al. 2018), with scipy's root of the product of the covariances.
    product = scipy.linalg.sqrtm(np.cov(x.T.numpy()) @ np.cov(y.T.numpy()))
    traces = np.trace(np.cov(x.T.numpy()) + np.cov(y.T.numpy()) - 2 * np.real(product))
    expected = float(((x.mean(0) - y.mean(0)) ** 2).sum()) + float(traces)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


class Flat(nn.Module):
    """Takes torchmetrics' pictures for features."""

    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Bytes(Flat):
    """Takes torchmetrics' pictures for logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).float() / 30


def test_frechet_distance_is_torchmetrics() -> None:
    x, y = draw(3, 80, 12).float(), draw(4, 90, 12).float() * 2
    metric = FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2))
    for features, real in ((x, True), (y, False)):
        metric.update(features.view(-1, 3, 2, 2), real=real)
    assert frechet_distance(x, y) == pytest.approx(float(metric.compute()), rel=1e-4)


def test_weights_are_repetitions() -> None:
    x, y = draw(5, 30, 4), draw(6, 20, 4) + 1
    a = torch.tensor([0.0, 1.0, 2.0]).repeat(10)
    b = torch.tensor([3.0, 1.0]).repeat(10)
    many = x.repeat_interleave(a.long(), 0), y.repeat_interleave(b.long(), 0)
    assert frechet_distance(x, y, a, b) == pytest.approx(frechet_distance(*many), rel=1e-9)
    probabilities = x.softmax(1)
    assert inception_score(probabilities, weights=a) == pytest.approx(
        inception_score(many[0].softmax(1)), rel=1e-9
    )


def test_kernel_distance_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distance, "BLOCK", 2)  # blocks of 2, 2, 1 rows
    x, y = draw(7, 5, 3), draw(8, 4, 3) + 0.5
    x_keys, y_keys = ["a", "b", "a", "c", "d"], ["d", "e", "e", "f"]
    v, w = torch.tensor([1.0, 2.0, 0.0, 1.0, 3.0]), torch.tensor([2.0, 1.0, 1.0, 4.0])

    def mean(p: Tensor, q: Tensor, p_keys: list[str], q_keys: list[str], pw: Tensor, qw: Tensor) -> float:
        total = weight = 0.0
        for i in range(len(p)):
            for j in range(len(q)):
                if p_keys[i] != q_keys[j]:
                    both = float(pw[i] * qw[j])
                    total, weight = total + both * float((1 + p[i] @ q[j] / 3) ** 3), weight + both
        return total / weight

    expected = mean(x, x, x_keys, x_keys, v, v) + mean(y, y, y_keys, y_keys, w, w)
    expected -= 2 * mean(x, y, x_keys, y_keys, v, w)
    found = kernel_distances(x, y, x_keys, y_keys, torch.stack([v, 2 * v]), torch.stack([w, w]))
    assert found.tolist() == pytest.approx([expected, expected])


def test_kernel_distance_of_unrelated_clips_is_torchmetrics() -> None:
    x, y = draw(9, 40, 6), draw(10, 40, 6) * 1.5
    k = lambda a, b: (1 + a @ b.T / 6) ** 3  # noqa: E731
    expected = float(poly_mmd(x, y))
    found = float(kernel_distances(x, y, names("x", 40), names("y", 40), ones(40), ones(40)))
    assert found == pytest.approx(expected, rel=1e-6)
    off = lambda m: (m.sum() - m.diagonal().sum()) / (40 * 39)  # noqa: E731
    assert found == pytest.approx(float(off(k(x, x)) + off(k(y, y)) - 2 * k(x, y).mean()))


def test_kernel_distance_of_pairs_is_that_of_pairs() -> None:
    x, y, keys = draw(11, 12, 4), draw(12, 12, 4) + 0.2, [str(i // 2) for i in range(12)]
    weights = key_weights(keys, 5, seed=0)
    pairs = KernelDistance(x, y, keys)
    expected = [pairs.value(row) for row in weights]
    assert kernel_distances(x, y, keys, keys, weights, weights).tolist() == pytest.approx(expected)


def test_kernel_distance_is_unbiased_for_sets_of_unequal_size_where_frechet_is_not() -> None:
    kernel, frechet = [], []
    for seed in range(150):
        x, y = draw(2 * seed + 100, 9, 4), draw(2 * seed + 101, 15, 4)
        kernel.append(float(kernel_distances(x, y, names("x", 9), names("y", 15), ones(9), ones(15))))
        frechet.append(frechet_distance(x, y))
    values = torch.tensor(kernel)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 150**0.5
    assert min(frechet) > 0


def test_sets_without_two_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="two keys in each set"):
        kernel_distances(draw(0, 3, 2), draw(1, 3, 2), ["a"] * 3, names("y", 3), ones(3), ones(3))


def test_inception_score_is_torchmetrics() -> None:
    pictures = torch.randint(
        256, (64, 3, 2, 2), generator=torch.Generator().manual_seed(13), dtype=torch.uint8
    )
    metric = InceptionScore(feature=Bytes(), splits=1)
    metric.update(pictures)
    found = inception_score(Bytes()(pictures).softmax(1))
    assert found > 1.5 and found == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_inception_score_of_certain_and_of_uncertain_classes() -> None:
    certain = torch.eye(5).repeat(40, 1)
    assert inception_score(certain) == pytest.approx(5)
    assert inception_score(torch.full((20, 5), 0.2)) == pytest.approx(1)
    in_order = certain[
        certain.argmax(1).argsort()
    ]  # a set sorted by class must not lose its variety in the parts
    assert inception_score(in_order, splits=4) > 4.5
    with pytest.raises(ValueError, match="cannot be split"):
        inception_score(certain[:3], splits=4)


def test_logits_become_probabilities_and_probabilities_stay() -> None:
    logits = draw(14, 6, 5).float()
    assert torch.equal(as_probabilities(logits), logits.softmax(1))
    assert torch.equal(as_probabilities(logits.softmax(1)), logits.softmax(1))


def test_shared_keys_are_drawn_together_and_others_apart() -> None:
    real, made = ["a", "b", "c", "r1", "r2"], ["c", "a", "b", "m1", "m1", "m2"]
    x, y = paired_key_weights(real, made, 200, seed=3)
    assert torch.equal(x[:, 0], y[:, 1]) and torch.equal(x[:, 2], y[:, 0]) and torch.equal(y[:, 3], y[:, 4])
    assert (x[:, :3].sum(1) == 3).all() and (x[:, 3:].sum(1) == 2).all() and (y[:, [3, 5]].sum(1) == 2).all()
    assert not torch.equal(x[:, 3], y[:, 3])
    alone = paired_key_weights(["a", "b"], ["c", "d", "e"], 50, seed=0)
    assert (alone[0].sum(1) == 2).all() and (alone[1].sum(1) == 3).all()


def test_the_interval_of_frechet_covers_its_own_mean() -> None:
    """The spread around the value covers the statistic's mean at this n; plain percentiles of the resamples miss it."""
    n, d, repeats = 30, 8, 40
    sets = [(draw(5000 + 2 * i, n, d), draw(5001 + 2 * i, n, d) * 1.2) for i in range(repeats)]
    values = [frechet_distance(*pair) for pair in sets]
    target, covered, plain = sum(values) / repeats, 0, 0
    for seed, (pair, value) in enumerate(zip(sets, values, strict=True)):
        a, b = paired_key_weights(names("x", n), names("y", n), 60, seed)
        resampled = torch.tensor([frechet_distance(*pair, v, w) for v, w in zip(a, b, strict=True)])
        low, high = spread_around(value, resampled)
        covered += low < target < high
        low, high = percentiles(resampled)
        plain += low < target < high
    assert covered >= 0.85 * repeats > 2 * plain
    assert spread_around(1.0, torch.tensor([3.0, 3.0])) == (1.0, 1.0)


def measured(values: Tensor, start: str) -> Measured:
    return Measured(values, names(start, len(values)), torch.ones(len(values)))


def test_an_interval_needs_keys_of_the_sets_that_it_comes_from() -> None:
    few, many = (measured(draw(seed, count, 3), "x") for seed, count in ((0, 2), (1, 9)))
    assert figures.fvd(few, many, "", figures.Bootstrap(5)).low is None
    assert figures.mean("m", many, few, "", figures.Bootstrap(5)).low is None
    assert figures.mean("m", few, many, "", figures.Bootstrap(5)).low is not None, "REAL is only beside it"


def test_a_distance_of_what_is_no_number_is_not_the_best_one() -> None:
    x = torch.full((5, 2), torch.nan, dtype=torch.float64)
    with suppress(torch.linalg.LinAlgError):  # which is told as a metric that cannot be computed
        assert np.isnan(frechet_distance(x, draw(0, 5, 2)))


@pytest.mark.parametrize("keys", [2, 3, 4])
def test_kernel_distances_of_few_keys_have_intervals(keys: int) -> None:
    """A resample may draw one key only, which defines no kernel distance; it is drawn again."""
    for seed in range(10):
        x, y = (measured(draw(seed + shift, keys, 3), name) for shift, name in ((0, "x"), (99, "y")))
        found = figures.kvd(x, y, "", figures.Bootstrap(50, seed))
        assert np.isfinite(found.value)
        if keys == 2:  # every resample is the whole set: [value, value] would read as certain
            assert found.low is found.high is None and "[no interval]" in figures.table([found])
        else:
            assert found.low is not None and found.high is not None and found.low < found.high
    alone = Measured(x.values, ["a"] * keys, x.fps)
    with pytest.raises(ValueError, match=rf"sets of 1 and {keys} keys cannot be resampled; each needs 2"):
        figures.kvd(alone, y, "", figures.Bootstrap(50))


def test_only_resamples_with_too_few_keys_are_drawn_again() -> None:
    real, made = ["a", "b", "r", "r"], ["b", "a", "m"]
    plain = paired_key_weights(real[:2], made[:2], 300, seed=1)
    again = paired_key_weights(real[:2], made[:2], 300, seed=1, least_keys=2)
    fine = (plain[0] > 0).all(1)
    assert 100 < fine.sum() < 200 and all(
        torch.equal(a[fine], b[fine]) for a, b in zip(plain, again, strict=True)
    )
    assert all((weights == 1).all() for weights in again)
    x, y = paired_key_weights(real, made, 300, seed=1, least_keys=3)
    assert torch.equal(x[:, 0], y[:, 1]) and torch.equal(x[:, 1], y[:, 0]), "keys of both sets stay together"
    assert (x[:, :2] == 1).all() and (x[:, 2:] == 1).all()


def test_an_interval_of_frechet_does_not_go_below_zero() -> None:
    lows, unbounded = [], []
    for seed in range(5):
        x, y = draw(seed, 12, 3), draw(seed + 50, 12, 3)
        found = figures.fvd(measured(x, "x"), measured(y, "y"), "", figures.Bootstrap(50))
        assert found.low is not None and found.high is not None
        assert 0 <= found.low <= found.value <= found.high
        lows.append(found.low)
        a, b = paired_key_weights(names("x", 12), names("y", 12), 50, 0)
        resampled = torch.tensor([frechet_distance(x, y, v, w) for v, w in zip(a, b, strict=True)])
        unbounded.append(spread_around(found.value, resampled)[0])
    assert min(unbounded) < 0 == min(lows), "these sets would have such an interval"
    assert frechet_distance(x, x) >= 0


def test_the_parts_of_an_inception_score_depend_on_made_alone() -> None:
    made, one_score = measured(draw(20, 60, 5).softmax(1), "m"), set()
    for real, beside in ((60, "REAL"), (40, "REAL, 1 x 40 clips"), (0, "")):
        clips = measured(draw(21, real, 5).softmax(1), "r")
        found = figures.inception(clips, made, "", figures.Bootstrap(3), splits=3)
        assert found.note.startswith("3 x 20 clips") and found.reference_name == beside
        assert (found.reference is None) == (real == 0)
        one_score.add(found.value)
    assert len(one_score) == 1


def test_halves_have_different_keys() -> None:
    keys = [str(i // 3) for i in range(18)]
    values = torch.arange(18.0)[:, None]
    halves = halves_of(Measured(values, keys, torch.ones(18)), seed=0)
    assert halves is not None
    first, second = ({keys[int(value)] for value in half[:, 0]} for half in halves)
    assert not first & second and len(first) == len(second) == 3
    assert halves_of(Measured(values[:3], ["a", "a", "a"], torch.ones(3)), seed=0) is None


def test_the_note_on_bias_depends_on_clips_and_features() -> None:
    assert "far too few" in bias_note(400, 400) and "400 clips for 400 features" in bias_note(400, 400)
    assert "too high" in bias_note(401, 400) and "far" not in bias_note(401, 400)
    assert bias_note(4000, 400) == "4000 clips for 400 features"
