"""The mean of the weights of several runs."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from microcinema_core.config import UNetConfig
from microcinema_core.files.checkpoint import read_checkpoint, write_checkpoint
from microcinema_core.model_spec import ModelSpec
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


def test_a_full_disk_is_one_sentence_and_all_files_are_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel's limit on file size stands in for a full disk."""
    files = [write(tmp_path / f"{value}.safetensors", value, rows=100_000) for value in (1.0, 2.0)]
    out = write(tmp_path / "mean.safetensors", 7.0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main([*map(str, files), "--out", str(out)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert f"could not write {out} (" in said and "free some room" in said and said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_would_be_lost_or_useless_is_refused(tmp_path: Path) -> None:
    first, second = (write(tmp_path / f"{value}.safetensors", value) for value in (1.0, 2.0))
    (tmp_path / "link.safetensors").symlink_to(first)
    for out in (first, tmp_path / "link.safetensors"):
        with pytest.raises(ValueError, match=r"--out names .*1\.0\.safetensors, which is averaged too"):
            average([first, second], out)
    with pytest.raises(ValueError, match=r"--out names .* is a folder: name a file"):
        average([first, second], tmp_path)
    with pytest.raises(ValueError, match=r"nan\.safetensors: .*NaN or infinite"):
        average([first, write(tmp_path / "nan.safetensors", float("nan"))], tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()


def test_an_odd_name_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(write(tmp_path / f"{value}.safetensors", value)) for value in (1.0, 2.0)]
    assert main([*files, "--out", str(tmp_path / "two\nlines.safetensors")]) == 0
    assert capsys.readouterr().out.endswith("two\\nlines.safetensors\n")
