"""Atomic writes: a file is complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .scratch import scratch_folder


@contextmanager
def atomic_write(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path on the disk of `path` to write to, which replaces `path` at the end.

    The temporary file is alone in a folder of its own, whose name nobody can predict, so no link that lies in wait is
    followed. If the block raises, that folder is removed and `path` is left as it was. What killed processes left in
    the folder of `path` is removed first. A `path` that is a link is replaced; what it points to is not changed.

    Args:
        path: the file to write; its folder is made.
        suffix: ending of the temporary name, for writers that choose a format by it.

    Raises:
        OSError: the folder cannot be written to, or `path` is a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path.parent) as folder:
        unfinished = folder / f"unfinished{suffix}"
        yield unfinished
        os.replace(unfinished, path)
