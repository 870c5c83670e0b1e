"""Master weights, EMA, batches and learning rates, each tested alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from microcinema_core.train.batches import Batches, CachedPictures
from microcinema_core.train.master_weights import EMAWeights, MasterWeights
from microcinema_core.train.step import rate_factor
from tests.train.train_world import Points, config


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    return tmp_path


def test_masters_keep_what_bf16_would_lose() -> None:
    weight = nn.Parameter(torch.ones(1))
    master_weights = MasterWeights({"w": weight}, separate=True)
    weight.data = weight.data.bfloat16()
    for _ in range(10):
        with torch.no_grad():
            master_weights.tensors[0].add_(1e-3)
        master_weights.publish()
    assert master_weights.tensors[0].item() == pytest.approx(1.01)
    assert weight.item() == pytest.approx(1.01, abs=0.004)
    for _ in range(3):
        (weight * 1.0).sum().backward()
        master_weights.collect_gradients()
    assert master_weights.tensors[0].grad.item() == 3.0 and weight.grad is None


@pytest.mark.parametrize("separate", [True, False])
def test_average_is_shown_and_taken_back(separate: bool) -> None:
    weight = nn.Parameter(torch.zeros(1))
    master_weights = MasterWeights({"w": weight}, separate=separate)
    average = EMAWeights(master_weights, 0.5)
    with torch.no_grad():
        master_weights.tensors[0].fill_(1.0)
    master_weights.publish()
    average.update(1000)
    assert average.tensors[0].item() == pytest.approx(0.5)
    with average.swapped_in():
        assert weight.item() == pytest.approx(0.5)
    assert weight.item() == 1.0


def test_feed_takes_each_item_once_an_epoch_and_goes_on_anywhere() -> None:
    feed = Batches(Points(), batch=8, seed=3)
    values = torch.cat([feed.next()["x"][:, 0] for _ in range(5)])
    torch.testing.assert_close(values.sort().values, torch.linspace(-1, 1, 40))
    later = Batches(Points(), batch=8, seed=3, position=feed.position)
    torch.testing.assert_close(later.next(), feed.next())
    with pytest.raises(ValueError, match="empty"):
        Batches([], batch=1, seed=0)


def test_remembered_pictures_are_rendered_once() -> None:
    class Pictures:
        calls = 0

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Tensor:
            self.calls += 1
            return torch.full((3, 2, 2), -1.0 + index)

    source = Pictures()
    kept = CachedPictures(source)
    torch.testing.assert_close(kept[0], kept[0])
    torch.testing.assert_close(kept[1], torch.zeros(3, 2, 2), atol=1 / 127, rtol=0)
    assert source.calls == 2


def test_rate_rises_then_falls() -> None:
    optim = config(decay="linear", decay_from=0.5).optim
    assert rate_factor(optim, 0, 0.0) == pytest.approx(1 / 3)
    assert rate_factor(optim, 10, 0.5) == 1.0
    assert rate_factor(optim, 10, 0.75) == pytest.approx(0.5)
    assert rate_factor(optim, 10, 1.0) == 0.0
