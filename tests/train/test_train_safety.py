"""A run never loses work: NaN, signals, lost data, damaged files, a full disk, two runs of one name."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microcinema_core.files.safetensors_io import write_tensors
from microcinema_core.train import __main__ as command
from microcinema_core.train import checkpoints as state
from microcinema_core.train import loop
from microcinema_core.train.checkpoints import save_checkpoint
from microcinema_core.train.step import DataLost, Diverged
from microcinema_core.train.trainer import Trainer
from microcinema_core.train.writing import NotWritten
from tests.data.test_folder_lock import hold
from tests.train.clip_world import table, to_toml
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


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the kernel's limit on file size, in bytes, stand in for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Large(Toy):
    """The toy with an exported file of 4 MB."""

    def export(self, path: Path, parts: dict[str, dict[str, Tensor]]) -> None:
        write_tensors(path, {"large": torch.ones(1_000_000), **parts["net"]}, {"format": "pt"})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("minutes", [0, 1e-9])
def test_a_full_disk_at_the_export_loses_nothing(home: Path, minutes: float) -> None:
    """At the end of a run and in its middle: the steps are saved, and --resume exports them."""
    settings = config(log={"export_minutes": minutes})
    run = settings.run_folder
    with (
        files_of_at_most(200_000),
        pytest.raises(
            NotWritten, match=r"could not write .*toy\.safetensors \(.*too large.*\): the .*--resume exports"
        ),
    ):
        loop.run(settings, stage=seeded(Large))
    saved = [path.name for path in state.saved_checkpoints(run / "checkpoints")]
    assert saved == (["step-00000001"] if minutes else ["step-00000012"])
    assert not [name for name in names(run) if name.startswith(".") or "unfinished" in name]
    assert loop.run(settings, stage=seeded(Large), resume=True).step == 12
    assert "toy.safetensors" in names(run) and not [name for name in names(run) if name.startswith(".")]


def test_a_sheet_that_cannot_be_written_saves_the_steps(home: Path) -> None:
    settings = config(log={"sheet_minutes": 1e-9})
    settings.run_folder.mkdir(parents=True)
    (settings.run_folder / "sheets").write_text("no folder")
    with pytest.raises(NotWritten, match=r"could not write .*step-00000001\.png .*continue with --resume"):
        loop.run(settings, stage=seeded())
    assert [path.name for path in state.saved_checkpoints(settings.run_folder / "checkpoints")] == [
        "step-00000001"
    ]


def test_a_second_run_of_one_name_is_told_and_one_after_a_kill_goes_on(home: Path) -> None:
    folder = config().run_folder
    other = hold(folder)
    try:
        before = names(folder)
        with pytest.raises(
            ValueError, match=rf"runs/toy is in use by process {other.pid} .*choose another `name`"
        ):
            loop.run(config(), stage=seeded())
        with pytest.raises(ValueError, match=rf"runs/toy is in use by process {other.pid} "):
            loop.run(config(), stage=seeded(), resume=True)
        assert names(folder) == before, "it wrote nothing"
    finally:
        other.kill()
        other.wait()
    assert loop.run(config(), stage=seeded()).step == 12
    assert ".lock" not in names(folder)


@pytest.mark.parametrize("variable", ["RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"])
def test_only_the_first_process_of_a_run_takes_the_lock(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    other = hold(config().run_folder)
    try:
        with loop._lock(config()):
            pass
    finally:
        other.kill()
        other.wait()


def test_a_start_that_fails_leaves_no_folder(home: Path) -> None:
    with pytest.raises(ValueError, match="nothing to resume"):
        loop.run(config(), stage=seeded(), resume=True)
    assert not (home / "runs").exists()


def test_what_killed_runs_left_is_removed_at_the_next_start(home: Path) -> None:
    loop.run(config(max_steps=6), stage=seeded())
    run = config().run_folder
    (run / "checkpoints" / ".writing-77").mkdir()
    (run / "checkpoints" / ".writing-77" / "tensors.safetensors").write_bytes(b"half")
    for path in (
        run / ".toy.safetensors.77.unfinished",
        run / ".tmpAb3dEf",
        run / "sheets" / ".x.png.7.unfinished.png",
    ):
        path.write_bytes(b"half")
    kept = names(run)
    loop.run(config(), stage=seeded(), resume=True)
    assert names(run) == {name for name in kept if not name.startswith(".")}
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize(
    ("state_json", "words"),
    [
        ("[]", "it lacks step in state.json"),
        ("{}", "it lacks step in state.json"),
        ('{"step": "x", "elapsed": 1, "position": 1}', "it lacks step in state.json"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_damaged_state_is_one_sentence(home: Path, state_json: str, words: str) -> None:
    loop.run(config(log={"checkpoint_steps": 6}), stage=seeded())
    *_, last = state.saved_checkpoints(home / "runs/toy/checkpoints")
    (last / "state.json").write_text(state_json)
    with pytest.raises(ValueError, match=f"step-00000012 .*{words}.*--resume"):
        loop.run(config(), stage=seeded(), resume=True)


def test_a_checkpoint_s_temporary_name_cannot_be_guessed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / f".writing-{os.getpid()}").symlink_to(victim)
    state.write_state(folder, 1, {"a": torch.ones(2)}, {}, keep=2)
    assert list(victim.iterdir()) == [] and (folder / "step-00000001").is_dir()


def test_where_the_export_cannot_go_is_told_before_the_first_step(home: Path) -> None:
    (home / "models").mkdir()
    (home / "file").write_text("x")
    for path, words in (("models", "is a folder"), ("file/x.safetensors", "is a file")):
        text = to_toml({**table("base"), "export_to": path})
        (home / "x.toml").write_text(text)
        assert command.main([str(home / "x.toml")]) == 1
        settings = config()
        object.__setattr__(settings, "export_to", path)
        with pytest.raises(ValueError, match=f"export_to names .*{words}: name a file"):
            loop.run(settings, stage=seeded())
    assert not (home / "runs").exists()


def test_damaged_rows_of_statistics_are_dropped(home: Path) -> None:
    loop.run(config(max_steps=4), stage=seeded())
    file = home / "runs/toy/stats.jsonl"
    rows = file.read_bytes()
    file.write_bytes(rows + b'[1]\n{"step": "x"}\n\xff\xfe\n{"loss": 1}\n{"step": 16, "lo')
    loop.run(config(), stage=seeded(), resume=True)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [4, 8, 12]


def test_a_full_disk_is_one_sentence_and_older_checkpoints_stay(tmp_path: Path) -> None:
    """The kernel's limit on file size stands in for a full disk."""
    state.write_state(tmp_path, 1, {"a": torch.ones(2)}, {}, keep=2)
    with (
        files_of_at_most(10_000),
        pytest.raises(OSError, match=r"could not save .*step-00000002.*older checkpoints are whole"),
    ):
        state.write_state(tmp_path, 2, {"a": torch.zeros(100_000)}, {}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(state.read_state(tmp_path / "step-00000001")[0]["a"], torch.ones(2))


def test_a_new_run_does_not_touch_the_checkpoints_of_an_old_one() -> None:
    loop.run(config(), stage=seeded())
    with pytest.raises(ValueError, match=r"holds step-00000012 of an earlier run.*--resume"):
        loop.run(config(), stage=seeded())
