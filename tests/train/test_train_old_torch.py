"""Training on a torch without `fully_shard` (before 2.6): only `fsdp = true` needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microcinema_core.train import fsdp
from microcinema_core.train.config import parse
from microcinema_core.train.processes import Processes
from tests.train.clip_world import table

ROOT = Path(__file__).resolve().parents[2]
OLD = """
import importlib, pkgutil, sys
import torch.distributed.fsdp

class Older:
    "Finds nothing that torch 2.4 does not have."
    def find_spec(self, name, path=None, target=None):
        if name == "torch.distributed.tensor" or name.startswith("torch.distributed.tensor."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [name for name in sys.modules if name.startswith("torch.distributed.tensor")]:
    del sys.modules[name]
sys.meta_path.insert(0, Older())
for name in ("fully_shard", "FSDPModule"):
    vars(torch.distributed.fsdp).pop(name, None)

import microcinema_core.train as package
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"{package.__name__}.{module.name}")

from microcinema_core.train import loop
from tests.train.train_world import config, seeded
print(loop.run(config(), stage=seeded()).step)
"""


def test_without_fsdp_no_name_of_a_newer_torch_is_needed(tmp_path: Path) -> None:
    environment = {**os.environ, "MICROCINEMA_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OLD]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "12"


def test_with_fsdp_an_older_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed.fsdp

    monkeypatch.delattr(torch.distributed.fsdp, "fully_shard", raising=False)
    with pytest.raises(ValueError, match=r"fsdp is true, which needs torch 2\.6 or newer, and torch is \d"):
        Processes(parse(table("base", fsdp=True)))
    assert not fsdp.is_sharded(torch.zeros(2)) and fsdp.local_shard(torch.zeros(2)).shape == (2,)
