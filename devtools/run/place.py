"""Put a finished file into a folder under a name that is free, also when others do the same at the same time."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from microcinema_core.files.scratch import scratch_folder


def place(source: Path, folder: Path, name: str) -> Path:
    """Copy a file into a folder as NAME, or as the first of NAME-2, NAME-3 ... that is free; return its path.

    Under its name the copy is complete from the first moment. No file is overwritten and no link is followed.

    Raises:
        OSError: the folder cannot be written to; nothing of the copy is left there.
    """
    with scratch_folder(folder) as scratch:
        copy = scratch / "copy"
        shutil.copyfile(source, copy)
        for target in _names(folder / name):
            if _take(copy, target):
                return target.resolve()
    raise AssertionError("there is always a next name")


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_stem(f"{path.stem}-{number}")


def _take(copy: Path, target: Path) -> bool:
    """Give the copy its name, and return whether the name was free."""
    try:
        os.link(copy, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        return _take_reserved(copy, target)
    return True


def _take_reserved(copy: Path, target: Path) -> bool:
    """Reserve the name by an empty file, which the copy then replaces."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    try:
        os.replace(copy, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return True
