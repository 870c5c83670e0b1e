"""Two gloo processes train like one process with twice the batch, with replicated and with sharded weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from microcinema_core.train import checkpoints as state
from microcinema_core.train.config import parse
from microcinema_core.train.processes import Processes
from tests.train.clip_world import table, to_toml, write_home

ROOT = Path(__file__).resolve().parents[2]
DATA = {"folder": "base", "test_folder": "base", "accumulate": 2}


@dataclass(frozen=True)
class Run:
    """Results of a run: statistics per step, its last checkpoint and its exported file."""

    rows: list[dict[str, float]]
    weights: dict[str, torch.Tensor]
    position: int
    exported: dict[str, torch.Tensor]


def launch(home: Path, name: str, processes: int, *options: str, **tables: Any) -> Run:
    """Run the command of docs/training.md, on the CPU if there are no GPUs, and return its results."""
    config = home / f"{name}.toml"
    config.write_text(to_toml(table("base", **tables, name=name)))
    several = ["--multi_gpu"] if processes > 1 else []
    launcher = ["accelerate.commands.launch", *several, "--num_processes", str(processes)]
    command = [sys.executable, "-m", *launcher, "-m", "microcinema_core.train", str(config), *options]
    environment = {
        **os.environ,
        "MICROCINEMA_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = home / "runs" / name
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    weights, scalars = state.read_state(state.saved_checkpoints(folder / "checkpoints")[-1])
    return Run(rows, weights, scalars["position"], load_file(folder / f"{name}.safetensors"))


def assert_same(run: Run, other: Run, precision: str) -> None:
    """Check that losses and gradients agree up to rounding, and that the files hold the same tensors."""
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if precision == "fp32" else {"rtol": 2e-2, "atol": 1e-3}
    assert run.position == other.position == 8 * len(run.rows)
    for row, theirs in zip(run.rows, other.rows, strict=True):
        for name in ("loss", "grad/temporal", "grad/injection", "grad/spatial"):
            torch.testing.assert_close(theirs[name], row[name], **tolerance)
    shapes = [{name: t.shape for name, t in one.weights.items()} for one in (run, other)]
    assert shapes[0] == shapes[1]
    for name, tensor in run.weights.items():
        if name.startswith("optim.") and name.endswith("exp_avg"):  # the gradients themselves
            torch.testing.assert_close(other.weights[name], tensor, **tolerance)
    assert set(run.exported) == set(other.exported)
    for name, tensor in run.exported.items():  # tiny gradients may flip AdamW's step
        torch.testing.assert_close(other.exported[name], tensor, rtol=0, atol=2e-3 * len(run.rows) + 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.long), "bf16"])
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path, precision: str) -> None:
    write_home(tmp_path)
    alone = launch(tmp_path, "alone", 1, precision=precision, data={**DATA, "batch": 4})
    halves = {"precision": precision, "data": {**DATA, "batch": 2}}
    assert_same(launch(tmp_path, "copies", 2, **halves), alone, precision)
    assert_same(launch(tmp_path, "shares", 2, **halves, sharded=True), alone, precision)


@pytest.mark.slow
@pytest.mark.long
def test_a_checkpoint_of_shares_is_one_of_whole_weights(tmp_path: Path) -> None:
    """A checkpoint of one process resumes with sharded weights, and vice versa."""
    write_home(tmp_path)
    one, three = ({**table("base")["optim"], "max_steps": steps} for steps in (1, 3))
    halves, wholes = {"data": {**DATA, "batch": 2}, "sharded": True}, {"data": {**DATA, "batch": 4}}
    launch(tmp_path, "first", 2, **halves, optim=one)
    launch(tmp_path, "second", 1, **wholes, optim=one)
    first = launch(tmp_path, "first", 1, "--resume", **wholes, optim=three)
    second = launch(tmp_path, "second", 2, "--resume", **halves, optim=three)
    assert len(first.rows) == 3
    assert_same(first, second, "fp32")


BUSY = """
import atexit, sys, torch
from torch import distributed
from microcinema_core.train.processes import exit_process
meeting, rank = sys.argv[1:]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2)
for _ in range(3000):
    distributed.all_reduce(torch.zeros(100), async_op=True)
print("written", end="")
atexit.register(print, ", and Python ended")
exit_process(3)
"""


@pytest.mark.slow
def test_a_process_ends_as_it_says_whatever_gloo_still_does(tmp_path: Path) -> None:
    """With sys.exit the process may abort: gloo's threads free tensors while the interpreter shuts down."""
    (tmp_path / "busy.py").write_text(BUSY)
    several = [
        subprocess.Popen(
            [sys.executable, tmp_path / "busy.py", tmp_path / "meeting", rank],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        for rank in "01"
    ]
    assert [process.communicate(timeout=120)[0] for process in several] == [b"written"] * 2
    assert [process.returncode for process in several] == [3, 3]


@pytest.mark.parametrize(
    "changes", [{"precision": "fp16-mixed"}, {"optim": {"lr": 1.0, "max_steps": 1, "optimizer": "muon"}}]
)
def test_what_cannot_be_shared_is_told(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'fsdp is true with .*needs "adamw"'):
        parse(table("base", sharded=True, **changes))


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_accelerates_own_plugins_are_not_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ValueError, match=rf"set to use {name}.*fsdp = true.*--multi_gpu"):
        Processes(parse(table("base")))
