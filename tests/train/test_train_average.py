"""The mean of the weights of several runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from microcinema_core.config import ModelSpec, UNetConfig
from microcinema_core.files.checkpoint import read_checkpoint, write_checkpoint
from microcinema_core.train.average import AVERAGED, average, main

CONFIG = UNetConfig(model_channels=32, context_dim=16, num_head_channels=16)


def write(path: Path, value: float, *, lambda_: float = 0.03, rows: int = 2, count: int = 7) -> Path:
    parts = {"unet": {"weight": torch.full((rows, 3), value), "count": torch.tensor([count])}}
    return write_checkpoint(path, parts, spec=ModelSpec("unet", lambda_, 2.0, 9), configs={"unet": CONFIG})


def test_the_mean_of_each_weight_and_the_first_files_words(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{value}.safetensors", value) for value in (1.0, 2.0, 6.0)]
    assert main([*map(str, files), "--out", str(tmp_path / "mean.safetensors")]) == 0
    mean, first = read_checkpoint(tmp_path / "mean.safetensors"), read_checkpoint(files[0])
    assert mean.parts["unet"]["weight"].equal(torch.full((2, 3), 3.0, dtype=torch.float16))
    assert mean.parts["unet"]["count"].equal(torch.tensor([7]))
    assert mean.metadata == {**first.metadata, AVERAGED: "3"}


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    first, out = write(tmp_path / "first.safetensors", 1.0), tmp_path / "mean.safetensors"
    with pytest.raises(ValueError, match=r"other\.safetensors differs from first\.safetensors in lambda:"):
        average([first, write(tmp_path / "other.safetensors", 1.0, lambda_=0.0)], out)
    with pytest.raises(ValueError, match=r"wide\.safetensors differs from first\.safetensors in tensors:"):
        average([first, write(tmp_path / "wide.safetensors", 1.0, rows=4)], out)
    with pytest.raises(ValueError, match="count differs between the files"):
        average([first, write(tmp_path / "counted.safetensors", 1.0, count=8)], out)
    with pytest.raises(ValueError, match="two files or more, 1 was given"):
        average([first], out)
    with pytest.raises(ValueError, match="no such file"):
        average([first, tmp_path / "absent.safetensors"], out)
    assert not out.exists()
