"""Folders for unfinished files: with a name that nobody can predict, removed at the end or at the next start.

A process that is killed leaves its folder behind. The lock in it tells the next process that nobody uses it any more.
Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .locks import lock_file

_PREFIX, _SUFFIX = ".microcinema-", ".unfinished"
_LOCK, _FILES = ".lock", "files"
_WITHOUT_LOCK = 3600.0
"""Seconds after which a folder without a lock is nobody's: its process ended before it made one."""


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder of one's own inside `parent`, and remove it with all that is still in it.

    Files in it can be moved to `parent` without copying. What killed processes left in `parent` is removed first.

    Args:
        parent: an existing folder.

    Raises:
        OSError: `parent` cannot be written to.
    """
    remove_leftovers(parent)
    folder, lock = _create(parent)
    try:
        (folder / _FILES).mkdir()
        yield folder / _FILES
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Remove the scratch folders in `parent` whose processes have ended."""
    found: list[str] = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:  # a folder that cannot be listed
        found = [entry.name for entry in entries if entry.name.startswith(_PREFIX)]
    for folder in [parent / name for name in found if name.endswith(_SUFFIX)]:
        with contextlib.suppress(OSError):
            if _is_ours(folder):
                _remove_unused(folder)


def _create(parent: Path) -> tuple[Path, int]:
    """Create a scratch folder and return it with its lock, an open file."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=parent))
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with contextlib.suppress(OSError):  # a file system without locks: leftovers stay there
            lock_file(lock, wait=True)
        if (folder / _LOCK).exists():
            return folder, lock
        os.close(lock)  # another process took it for a leftover before it was locked


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "geteuid") or found.st_uid == os.geteuid())


def _remove_unused(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        if time.time() - folder.stat().st_mtime > _WITHOUT_LOCK:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        unused = lock_file(lock)
        if unused and os.name == "posix":
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
    if unused and os.name != "posix":  # an open file cannot be removed there
        shutil.rmtree(folder, ignore_errors=True)
