"""ComfyUI's base directories: kept and temporary ones, and the lock by which a server is alone in one.

The lock lasts as long as the server or the process that started it. Its file has the server's address and process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from microcinema_core.files.locks import lock_file

from .home import cannot_write, home, lock

LOCK = "in_use.lock"
"""The file in a base directory that its server holds locked, and which names that server."""
_FORGOTTEN = 3 * 24 * 3600.0
"""Seconds after which a temporary base directory without that file is nobody's."""


class Running(NamedTuple):
    """The server that a base directory's lock names."""

    url: str
    process: int


def kept_base() -> Path:
    """Return the base directory of `serve` and `demo --keep`, whose files and settings stay."""
    return home() / "serve"


def temporary_base() -> Path:
    """Create a base directory for one server, and remove those whose servers have ended.

    Raises:
        Problem: the data folder cannot be written to.
    """
    runs = home() / "runs"
    try:
        runs.mkdir(exist_ok=True)
        with lock("runs"):
            _remove_old(runs)
        return Path(tempfile.mkdtemp(prefix="host-", dir=runs))
    except OSError as error:
        raise cannot_write(runs, error) from error


def _remove_old(runs: Path) -> None:
    for folder in runs.glob("host-*"):
        with contextlib.suppress(OSError):
            if not _is_in_use(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_in_use(base: Path) -> bool:
    """Return whether a server runs in a base directory, or may be about to."""
    try:
        file = os.open(base / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return time.time() - base.stat().st_mtime < _FORGOTTEN
    try:
        return not lock_file(file)
    finally:
        os.close(file)


def take_base(base: Path) -> int | None:
    """Lock a base directory, which is created if it is absent; return the lock's descriptor, or None if it is taken.

    Raises:
        OSError: the folder cannot be written to.
    """
    base.mkdir(parents=True, exist_ok=True)
    with lock("runs"):
        held = os.open(base / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        free = True
        with contextlib.suppress(OSError):  # a file system without locks
            free = lock_file(held)
    if not free:
        os.close(held)
        return None
    os.truncate(held, 0)
    return held


def name_server(held: int, server: Running) -> None:
    """Write into a lock's file which server holds it."""
    os.truncate(held, 0)
    os.lseek(held, 0, os.SEEK_SET)
    os.write(held, f"{server.url}\n{server.process}\n".encode())


def running_in(base: Path) -> Running | None:
    """Return the server that runs in a base directory, or None."""
    try:
        lines, locked = (base / LOCK).read_text(encoding="utf-8").split(), _is_in_use(base)
    except OSError:  # no such folder, or a file system without locks
        return None
    if len(lines) != 2:
        return None
    server = Running(lines[0], int(lines[1]))
    # On Windows a server that outlives dev.py does not inherit the lock.
    return server if locked or (os.name != "posix" and _responds(server.url)) else None


def _responds(url: str) -> bool:
    try:
        with urlopen(f"{url}/system_stats", timeout=5):
            return True
    except (URLError, OSError):
        return False
