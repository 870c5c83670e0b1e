"""The training loop on a tiny network: resuming, parameter groups, gradients and budgets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from microcinema_core.train import checkpoints as state
from microcinema_core.train import loop
from microcinema_core.train.checkpoints import ema_parts, resume_from_checkpoint, save_checkpoint
from microcinema_core.train.trainer import Trainer, build
from tests.train.train_world import Toy, Wide, config, seeded


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    return tmp_path


def start(cfg, toy: Toy) -> Trainer:
    toy.prepare()
    return build(cfg, toy)


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(home: Path) -> None:
    whole = loop.run(config("whole"), stage=seeded())

    half = start(config("half"), seeded())
    for _ in range(5):
        loop.train_step(half)
    save_checkpoint(half)
    torch.manual_seed(99)
    resumed = loop.run(config("half"), stage=Toy(), resume=True)

    assert resumed.step == whole.step == 12
    for ours, theirs in zip(resumed.master_weights.tensors, whole.master_weights.tensors, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(resumed.ema.tensors, whole.ema.tensors, strict=True):
        assert torch.equal(ours, theirs)
    files = [load_file(home / f"runs/{name}/{name}.safetensors") for name in ("half", "whole")]
    assert all(torch.equal(files[0][key], files[1][key]) for key in files[1])


@pytest.mark.parametrize("optimizer", ["muon", "adamw8bit"])
def test_every_optimizer_goes_on_to_the_bit(optimizer: str) -> None:
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    settings = config(optimizer=optimizer, ema_on="cpu", log={"checkpoint_steps": 1})
    whole, resumed = start(settings, seeded(Wide)), build(settings, Wide())
    for _ in range(3):
        loop.train_step(whole)
    save_checkpoint(whole)
    resume_from_checkpoint(resumed)
    for trainer in (whole, resumed):
        for _ in range(3):
            loop.train_step(trainer)
    for ours, theirs in zip(resumed.master_weights.tensors, whole.master_weights.tensors, strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_frozen_stays_and_what_is_trained_moves(home: Path) -> None:
    toy = seeded()
    before = {key: t.clone() for key, t in toy.net.state_dict().items()}
    trainer = start(config(), toy)
    assert not any(name.startswith("net.fixed") for name in trainer.master_weights.names)
    loop.train_step(trainer)
    after = ema_parts(trainer)["net"]
    assert all(t.dtype == torch.float32 for t in after.values())
    assert torch.equal(after["fixed.weight"], before["fixed.weight"])  # though it works in bfloat16
    assert not torch.equal(after["fast.weight"], before["fast.weight"])


def test_biases_are_not_decayed() -> None:
    trainer = start(config(), seeded())
    decay = {id(p): g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    for name, tensor in zip(trainer.master_weights.names, trainer.master_weights.tensors, strict=True):
        assert decay[id(tensor)] == (0.01 if tensor.ndim > 1 else 0.0), name


def test_a_budget_and_checkpoints_by_the_clock(home: Path) -> None:
    trainer = loop.run(config(max_steps=0, max_minutes=1e-4), stage=seeded())
    assert trainer.step > 0 and trainer.elapsed >= 60e-4
    loop.run(config("often", max_steps=3, log={"checkpoint_minutes": 1e-9, "keep": 9}), stage=seeded())
    names = [path.name for path in state.saved_checkpoints(home / "runs/often/checkpoints")]
    assert names == [f"step-{step:08d}" for step in (1, 2, 3)]


def test_gradients_are_clipped_to_their_norm() -> None:
    trainer = start(config(clip=1e-3, precision="fp32"), seeded())
    figures = loop.train_step(trainer)
    before = torch.stack([value for name, value in figures.items() if name.startswith("grad/")]).norm()
    after = torch.stack([m.grad.norm() for m in trainer.master_weights.tensors]).norm()
    assert before > 0.01 and after.item() == pytest.approx(1e-3, rel=1e-3)


def test_accumulated_batches_are_one_large_batch() -> None:
    class Plain(Toy):
        def loss(self, batch, draws):
            y = self.net["fixed"](self.net["slow"](torch.tanh(self.net["fast"](batch["x"]))))
            return (y - 2 * batch["x"]).square().mean(), {}

    one, two = (
        start(config(precision="fp32", data={"batch": batch, "accumulate": count}), seeded(Plain))
        for batch, count in ((8, 1), (4, 2))
    )
    for _ in range(3):
        assert loop.train_step(one)["loss"].item() == pytest.approx(
            loop.train_step(two)["loss"].item(), rel=1e-5
        )
    for ours, theirs in zip(one.master_weights.tensors, two.master_weights.tensors, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
