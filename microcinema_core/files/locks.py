"""Locks of files against other processes; the system releases them when their process ends, however it ends.

Imports the standard library only.
"""

from __future__ import annotations

import os
import sys
import time

_FAR = 1 << 30
"""Windows locks bytes, and nobody else can read locked ones: lock one that no file here has."""


def lock_file(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file until it is closed, and return whether it is locked.

    Args:
        descriptor: the file, open for writing.
        wait: whether to wait for another holder, instead of returning False.

    Raises:
        OSError: the file system has no locks.
    """
    while not _lock_now(descriptor):
        if not wait:
            return False
        time.sleep(0.1)
    return True


def _lock_now(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
