"""The dry run: its counts, the measured time and memory of real steps, and errors for missing libraries."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from microcinema_core.train.__main__ import main
from microcinema_core.train.base import BaseStage
from microcinema_core.train.checkpoints import save_checkpoint
from microcinema_core.train.config import parse
from microcinema_core.train.plan import activations, describe
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.stages import build_stage
from tests.train.clip_world import to_toml
from tests.train.sd_world import ALL, config, trained, write_sd_home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    write_sd_home(tmp_path)
    return tmp_path


def test_the_dry_run_counts(home: Path) -> None:
    text = describe(parse(config({**ALL, "spatial": 0})))
    stage = build_stage(parse(config(ALL)))
    numbers = {"temporal": 0, "injection": 0}
    for part, module in stage.modules.items():
        for key, parameter in module.named_parameters():
            if (group := stage.group_of(f"{part}.{key}")) in numbers:
                numbers[group] += parameter.numel()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert all(f"{count / 1e6:.2f} M" in lines[group] for group, count in numbers.items())
    assert '"lr": 0.01' in text and "activations" in text and "together" in lines
    assert "rate 0.01" in lines["temporal"] and "frozen" in lines and "spatial" not in lines
    assert "6 items, 2 a step: 3.0 steps per epoch; 2 steps are 0.67 epochs" in text
    assert not (home / "runs").exists()


def test_activations_are_counted_as_autograd_keeps_them() -> None:
    """Compare with a real step; the loss's own tensors are left out, and attention is counted as if fused."""
    settings = parse(config(ALL, precision="fp32"))
    stage = BaseStage(settings, device="meta")
    plain, again = activations(stage, settings)
    assert 0 < again < plain
    real = build_stage(settings)
    weights = {p.untyped_storage()._cdata for m in real.modules.values() for p in m.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    batch = default_collate([real.dataset[i] for i in range(2)])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        real.loss(batch, SharedRandom(torch.Generator().manual_seed(0)))
    held = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)
    assert plain == pytest.approx(held, rel=0.15)


def written(home: Path, **changes: Any) -> str:
    path = home / "mine.toml"
    path.write_text(to_toml(config(ALL, **changes)))
    return str(path)


def test_real_steps_are_measured_and_leave_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    assert main([written(home), "--measure", "2"]) == 0
    said = capsys.readouterr().out
    peaks = [float(text) for text in re.findall(r"peak (?:so far )?([\d.]+) GiB", said)]
    losses = [
        float(text)
        for text in re.findall(r"step \d: [\d.]+ s, [\d.]+ s of processor time, loss ([\d.]+)", said)
    ]
    assert len(peaks) == 3 and min(peaks) > 0.1 and len(losses) == 2 and min(losses) > 0
    after = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    assert set(after) == {*before, home / "mine.toml"}


@pytest.mark.parametrize(("library", "options"), [("accelerate", []), ("tqdm", ["--resume"])])
def test_a_library_that_is_not_there_is_one_sentence(
    home: Path,
    library: str,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if options:
        save_checkpoint(trained(groups=ALL))
    monkeypatch.setitem(sys.modules, library, None)
    assert main([written(home), *options]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{library} is not installed: pip install '.[train]'") and said.count("\n") == 1
