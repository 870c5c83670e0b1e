"""Atomic writes: a file is complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, which replaces `path` at the end.

    If the block raises, the temporary file is removed and `path` is left as it was.

    Args:
        path: the file to write; its folder is made.
        suffix: ending of the temporary name, for writers that choose a format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished{suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
