"""The lock of a folder: one process at a time, and none for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microcinema_core.data.folder_lock import LOCK, locked_folder, remove_leftovers

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from microcinema_core.data.folder_lock import locked_folder
with locked_folder(Path(sys.argv[1]), "wait"):
    print("locked", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Return another process that holds the lock of a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    return process


def test_another_process_is_named_and_a_dead_one_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "run\nof two lines"
    other = hold(folder)
    try:
        with pytest.raises(ValueError) as error, locked_folder(folder, "wait until it has ended"):
            raise AssertionError("two processes are in it")
        said = str(error.value)
        assert f"process {other.pid} " in said and r"run\nof two lines is in use by" in said
        assert said.endswith(": wait until it has ended") and "\n" not in said
    finally:
        other.kill()
        other.wait()
    assert (folder / LOCK).exists(), "a killed process leaves its file"
    with locked_folder(folder, "wait"):
        assert f"process {os.getpid()} " in (folder / LOCK).read_text()
    assert list(folder.iterdir()) == []


def test_folders_that_stay_empty_are_removed(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "a" / "b", "wait"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked_folder(tmp_path / "a" / "b", "wait"):
        (tmp_path / "a" / "b" / "file").write_text("x")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), locked_folder(tmp_path / "run", "wait"):
        raise AssertionError("it was locked")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_file_system_without_locks_is_used_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object, **__: object) -> bool:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("microcinema_core.data.folder_lock.lock_file", none)
    with locked_folder(tmp_path / "run", "wait"):
        (tmp_path / "run" / "file").write_text("x")
    assert "has no locks (Function not implemented)" in caplog.text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_unfinished_files_of_earlier_versions_are_removed(tmp_path: Path) -> None:
    left = (".my.safetensors.77.unfinished", ".step.png.8.unfinished.png", ".tmpAb3dEf")
    kept = ("my.safetensors", ".tmp", ".tmpfolder.txt", "notes.unfinished", ".hidden")
    for name in (*left, *kept):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path, tmp_path / "absent")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
