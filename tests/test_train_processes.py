"""Two processes with gloo train as one with twice the batch does: the same losses, gradients and weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from microcinema_core.train import state
from tests.clip_world import table, write_home

ROOT = Path(__file__).resolve().parent.parent


def train(
    home: Path, processes: int, **tables: Any
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """A run as a launcher starts it; its figures and its last checkpoint."""
    config = table("base", name=f"by_{processes}", **tables)
    # What `accelerate launch` runs, without its questions about the machine.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *launcher, "-m", "tests.train_world", json.dumps(config)]
    environment = {
        **os.environ,
        "MICROCINEMA_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = home / "runs" / config["name"]
    rows = json.loads((folder / "rows.json").read_text())
    tensors, scalars = state.read(state.checkpoints(folder / "checkpoints")[-1])
    assert scalars["position"] == 16
    return rows, tensors


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path, precision: str) -> None:
    write_home(tmp_path)
    data = {"folder": "base", "test_folder": "base", "accumulate": 2}
    rows, weights = train(tmp_path, 1, precision=precision, data={**data, "batch": 4})
    their_rows, theirs = train(tmp_path, 2, precision=precision, data={**data, "batch": 2})
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if precision == "fp32" else {"rtol": 2e-2, "atol": 1e-3}
    for row, other in zip(rows, their_rows, strict=True):
        for name in ("loss", "grad/temporal", "grad/injection", "grad/spatial"):
            torch.testing.assert_close(other[name], row[name], **tolerance)
    for name, tensor in weights.items():
        if name.startswith("optim.") and name.endswith("exp_avg"):  # the gradients themselves
            torch.testing.assert_close(theirs[name], tensor, **tolerance)
