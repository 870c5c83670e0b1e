"""The lock of a folder that one process at a time may write to, such as that of a run or of prepared sets."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import scratch
from ..files.locks import lock_file
from ..messages import one_line

logger = logging.getLogger(__name__)

LOCK = ".lock"
EARLIER = re.compile(r"\..+\.\d+\.unfinished(\..+)?|\.tmp\w{6}")
"""Names of unfinished files of earlier versions, and of the safetensors library."""
MOST_TRIES = 1000
"""Times that a lock file is made, where other processes remove it at the same moment."""
HOLDER_BYTES = 200
"""Bytes of a lock file that are read: the process that holds it."""


@contextmanager
def locked_folder(folder: Path, advice: str) -> Iterator[None]:
    """Make a folder, and keep other processes out of it within this context.

    The system releases the lock of a process that ends, however it ends: the next one takes over. Folders that were
    made here and are empty at the end are removed.

    Args:
        folder: the folder; the lock is its file `.lock`.
        advice: what to do if another process holds it, the end of the message.

    Raises:
        ValueError: another process holds the lock; the message names the folder and the process.
        OSError: the folder cannot be written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _take(folder / LOCK, advice)
        try:
            yield
        finally:
            _release(folder / LOCK, descriptor)
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def _take(path: Path, advice: str) -> int:
    """Return the lock file, open and locked, with this process's id and machine in it."""
    for _ in range(MOST_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # another process has just removed the folder, which was empty
            continue
        try:
            _lock(descriptor, path, advice)
            if _is_at(path, descriptor):
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it between the two lines above
    raise OSError(f"{one_line(path)} disappears as soon as it is made: choose another folder")


def _lock(descriptor: int, path: Path, advice: str) -> None:
    try:
        locked = lock_file(descriptor)
    except OSError as error:
        logger.warning(
            "%s: its file system has no locks (%s); see to it that no other process writes there",
            one_line(path.parent),
            error.strerror,
        )
        return
    if not locked:
        told = one_line(os.read(descriptor, HOLDER_BYTES).decode("utf-8", "replace"))
        raise ValueError(f"{one_line(path.parent)} is in use by {told or 'another process'}: {advice}")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    if os.name == "posix":  # elsewhere an open file cannot be removed
        path.unlink(missing_ok=True)
    os.close(descriptor)
    if os.name != "posix":
        with contextlib.suppress(OSError):  # the next process has it open already
            path.unlink(missing_ok=True)


def remove_leftovers(*folders: Path) -> None:
    """Remove the unfinished files that killed processes left in these folders, which the caller has locked."""
    for folder in filter(Path.is_dir, folders):
        scratch.remove_leftovers(folder)
        for path in folder.iterdir():
            if EARLIER.fullmatch(path.name) and (path.is_symlink() or path.is_file()):
                path.unlink(missing_ok=True)
