"""A run's checkpoints on disk: whole or absent, never half. Tensors as safetensors, scalars as JSON, no pickle."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_NAME = re.compile(r"step-(\d{8})")


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def save(folder: Path, step: int, tensors: dict[str, Tensor], scalars: dict[str, Any], *, keep: int) -> Path:
    """Write `folder`/step-N, then drop all but the newest `keep`. A kill at any moment leaves the older ones whole.

    A step that is there already is the same state, and stays as it is. Raises OSError with one sentence where the disk
    does not take it; what was there before is untouched.
    """
    target, temporary = folder / f"step-{step:08d}", folder / f".writing-{os.getpid()}"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write(temporary, tensors, {"step": step, **scalars})
        os.replace(temporary, target)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            f"could not save {target}: {error}; the older checkpoints are whole, --resume goes on from the newest"
        ) from error
    for old in [*checkpoints(folder)[:-keep], *folder.glob(".writing-*")]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _write(folder: Path, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Both files, on the disk and not only in its cache."""
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, folder / "tensors.safetensors")
    (folder / "state.json").write_text(json.dumps(scalars, indent=1))
    for path in folder.iterdir():
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and scalars of one checkpoint; ValueError with one sentence where the disk has lost a part of it."""
    try:
        return load_file(path / "tensors.safetensors"), json.loads((path / "state.json").read_text())
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): move it away, and --resume goes on from the one before"
        ) from error
