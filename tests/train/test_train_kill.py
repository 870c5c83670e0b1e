"""A run that is repeatedly killed at random moments ends bit-identical to an uninterrupted one."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from microcinema_core.train import checkpoints as state
from microcinema_core.train.config import TrainConfig
from tests.train import train_world

KILLS, STEPS = 20, 200
processes = multiprocessing.get_context("forkserver")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # the fork server has its own sys.path
    processes.set_forkserver_preload(["tests.train.train_world", "torch.utils.tensorboard", "torch._dynamo"])
    return tmp_path


def run(config: TrainConfig, *, kill_after: float | None = None) -> int:
    """Train in a separate process and return its exit code; SIGKILL ends it after `kill_after` loss computations."""
    beats, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=train_world.go_on, args=(config, theirs))
    process.start()
    theirs.close()
    if kill_after is not None:
        pace = [time.monotonic()] * 2
        for _ in range(int(kill_after)):
            beats.recv()
            pace = [pace[1], time.monotonic()]
        time.sleep(kill_after % 1 * 2 * (pace[1] - pace[0]))
        process.kill()
    else:
        while beats.poll(None):
            try:
                beats.recv()
            except EOFError:
                break
    process.join()
    return process.exitcode or 0


@pytest.mark.slow
def test_twenty_kills_lose_nothing(home: Path) -> None:
    tables = {"precision": "bf16", "optimizer": "muon", "max_steps": STEPS, "log": {"checkpoint_steps": 1}}
    whole, killed = (train_world.config(name, **tables) for name in ("whole", "killed"))
    assert run(whole) == 0
    dice = random.Random(0)
    for _ in range(KILLS):
        assert run(killed, kill_after=dice.uniform(0, 20)) == -signal.SIGKILL
    reached = state.saved_checkpoints(killed.run_folder / "checkpoints")[-1]
    assert f"step-{0:08d}" < reached.name < f"step-{STEPS:08d}"
    assert run(killed) == 0

    ends = [state.saved_checkpoints(c.run_folder / "checkpoints")[-1] for c in (whole, killed)]
    assert [path.name for path in ends] == [f"step-{STEPS:08d}"] * 2
    theirs, ours = (state.read_state(path)[0] for path in ends)
    assert any(key.endswith(".momentum") for key in theirs) and any(key.startswith("ema.") for key in theirs)
    assert set(ours) == set(theirs) and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not list((killed.run_folder / "checkpoints").glob(".*"))
