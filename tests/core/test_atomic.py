"""Atomic writes: a file exists completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from microcinema_core.files.atomic import atomic_write


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
