"""A run never loses work: NaN, signals, lost data, damaged files, a full disk."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microcinema_core.train import checkpoints as state
from microcinema_core.train import loop
from microcinema_core.train.checkpoints import save_checkpoint
from microcinema_core.train.step import DataLost, Diverged
from microcinema_core.train.trainer import Trainer
from tests.train.train_world import Points, Toy, config, seeded


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    return tmp_path


def test_nan_stops_and_keeps_the_last_good_checkpoint(home: Path) -> None:
    """With two batches per step, the seventh is the first of step 3. Resuming from there completes the run."""
    settings = config(log={"checkpoint_steps": 1})
    with pytest.raises(Diverged, match="step 3: loss nan"):
        loop.run(settings, stage=seeded(explode_at=7))
    found = state.saved_checkpoints(home / "runs/toy/checkpoints")
    assert [path.name for path in found] == ["step-00000002", "step-00000003"]
    assert all(
        torch.isfinite(t).all() for t in state.read_state(found[-1])[0].values() if t.is_floating_point()
    )
    assert loop.run(settings, stage=seeded(), resume=True).step == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends(home: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the signal is repeated while the checkpoint is written, as launchers do."""

    class Impatient(Toy):
        def loss(self, batch, draws):
            if self.calls == 4:
                os.kill(os.getpid(), number)
            return super().loss(batch, draws)

    def again(trainer: Trainer) -> None:
        os.kill(os.getpid(), number)
        save_checkpoint(trainer)

    monkeypatch.setattr(loop, "save_checkpoint", again)
    before = signal.getsignal(number)
    trainer = loop.run(config(), stage=seeded(Impatient))
    assert 0 < trainer.step < 12
    assert state.saved_checkpoints(home / "runs/toy/checkpoints")[-1].name == f"step-{trainer.step:08d}"
    assert signal.getsignal(number) is before


def test_data_that_gets_lost_ends_it_with_all_steps_saved(home: Path) -> None:
    class Lost(Points):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            if toy.calls == 8:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    toy = seeded()
    toy.dataset = Lost()
    with pytest.raises(DataLost, match=r"step 4: the data could not be read \(the disk is gone\)"):
        loop.run(config(), stage=toy)
    assert [path.name for path in state.saved_checkpoints(home / "runs/toy/checkpoints")] == ["step-00000004"]


def test_a_damaged_checkpoint_is_one_sentence(home: Path) -> None:
    loop.run(config(log={"checkpoint_steps": 6}), stage=seeded())
    *_, last = state.saved_checkpoints(home / "runs/toy/checkpoints")
    (last / "tensors.safetensors").write_bytes(b"torn")
    with pytest.raises(
        ValueError, match=r"step-00000012 cannot be read .*--resume continues from the one before"
    ):
        loop.run(config(), stage=seeded(), resume=True)


def test_half_written_checkpoints_are_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_state(tmp_path, 1, {"a": torch.ones(2)}, {}, keep=2)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            state.write_state(tmp_path, 2, {"a": torch.zeros(2)}, {}, keep=2)
    assert [p.name for p in state.saved_checkpoints(tmp_path)] == ["step-00000001"]
    for step in (3, 4, 5):
        state.write_state(tmp_path, step, {"a": torch.full((2,), float(step))}, {"x": step}, keep=2)
    assert [p.name for p in state.saved_checkpoints(tmp_path)] == ["step-00000004", "step-00000005"]
    assert not list(tmp_path.glob(".*"))
    tensors, scalars = state.read_state(state.saved_checkpoints(tmp_path)[-1])
    assert scalars == {"step": 5, "x": 5} and torch.equal(tensors["a"], torch.full((2,), 5.0))


def test_a_full_disk_is_one_sentence_and_older_checkpoints_stay(tmp_path: Path) -> None:
    """The kernel's limit on file size stands in for a full disk."""
    state.write_state(tmp_path, 1, {"a": torch.ones(2)}, {}, keep=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=r"could not save .*step-00000002.*older checkpoints are whole"):
            state.write_state(tmp_path, 2, {"a": torch.zeros(100_000)}, {}, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(state.read_state(tmp_path / "step-00000001")[0]["a"], torch.ones(2))


def test_a_new_run_does_not_touch_the_checkpoints_of_an_old_one() -> None:
    loop.run(config(), stage=seeded())
    with pytest.raises(ValueError, match=r"holds step-00000012 of an earlier run.*--resume"):
        loop.run(config(), stage=seeded())
