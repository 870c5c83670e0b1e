"""Atomic writes: a file exists completely or not at all, and no link that lies in wait is followed."""

from __future__ import annotations

import os
import random
import re
import signal
import stat
import time
from pathlib import Path

import pytest
import torch

from microcinema_core.files.atomic import atomic_write
from microcinema_core.files.safetensors_io import read_tensors, write_tensors


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk full"), atomic_write(tmp_path / "new" / "clip.mp4") as part:
        part.write_bytes(b"half")
        raise RuntimeError("disk full")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with atomic_write(path, suffix=".mp4") as part:
        assert part.suffix == ".mp4"
        part.write_bytes(b"whole")
    with pytest.raises(RuntimeError, match="disk full"), atomic_write(path) as part:
        part.write_bytes(b"half")
        raise RuntimeError("disk full")
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"] and path.read_bytes() == b"whole"


def test_links_that_lie_in_wait_are_not_followed(tmp_path: Path) -> None:
    """A name made of the file's name and the process's id can be guessed, and a link put there."""
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("precious")
    folder.mkdir()
    for suffix in ("", ".mp4"):
        (folder / f".clip.mp4.{os.getpid()}.unfinished{suffix}").symlink_to(victim)
    (folder / "clip.mp4").symlink_to(victim)
    with atomic_write(folder / "clip.mp4", suffix=".mp4") as part:
        part.write_text("a clip")
    assert victim.read_text() == "precious"
    assert not (folder / "clip.mp4").is_symlink() and (folder / "clip.mp4").read_text() == "a clip"


def test_no_two_temporary_names_are_alike_and_nobody_else_can_enter(tmp_path: Path) -> None:
    seen = set()
    for _ in range(5):
        with atomic_write(tmp_path / "x") as part:
            part.write_text("x")
            [own] = [path for path in tmp_path.iterdir() if path.name != "x"]
            assert part.is_relative_to(own) and stat.S_IMODE(own.stat().st_mode) == 0o700
            seen.add(own.name)
    assert len(seen) == 5 and not any(str(os.getpid()) in re.split(r"\W", name) for name in seen)


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """A temporary name that is made of the file's own would be too long."""
    path = tmp_path / ("n" * 251 + ".mp4")
    with atomic_write(path, suffix=".mp4") as part:
        part.write_text("x")
    assert path.read_text() == "x"


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with atomic_write(tmp_path / "written") as part:
        part.write_text("x")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    process = os.fork()
    if process == 0:
        with atomic_write(tmp_path / "x") as part:
            part.write_text("half")
            os._exit(9)  # as a kill: nothing is cleaned up
    os.waitpid(process, 0)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_write(tmp_path / "x") as part:
        part.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_text() == "whole"


@pytest.mark.slow
def test_weights_that_are_written_over_are_whole_after_every_kill(tmp_path: Path) -> None:
    """An export that is killed leaves the file before it or the one after it, whatever the moment."""
    path, dice, seen = tmp_path / "x.safetensors", random.Random(0), set()
    for _ in range(60):
        process = os.fork()
        while process == 0:
            for value in (1.0, 2.0):
                write_tensors(path, {"weight": torch.full((100_000,), value)}, {"value": str(value)})
        time.sleep(dice.uniform(0, 0.1))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        if path.exists():
            tensors, metadata = read_tensors(path)
            assert bool((tensors["weight"] == float(metadata["value"])).all())
            seen.add(metadata["value"])
    assert seen == {"1.0", "2.0"}
    for leftover in tmp_path.glob(".*"):  # one without a lock is nobody's after an hour
        os.utime(leftover, (0, 0))
    write_tensors(path, {"weight": torch.zeros(1)}, {})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
