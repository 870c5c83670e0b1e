"""Writes of a run that fail: one sentence with the file, the reason, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..messages import one_line, reason


class NotWritten(OSError):
    """The error for a file that could not be written; the message is a whole sentence."""


@contextmanager
def writing(path: Path, advice: str) -> Iterator[None]:
    """Turn an error of writing `path` within this context into a sentence.

    Args:
        path: the file, for the message.
        advice: what is safe, and what to do: the end of the sentence.

    Raises:
        NotWritten: the disk is full or not writable. (safetensors hides the system's errors in one of its own.)
    """
    try:
        yield
    except NotWritten:
        raise
    except (OSError, SafetensorError) as error:
        raise NotWritten(f"could not write {one_line(path)} ({reason(error)}): {advice}") from error


def refuse_unwritable(path: Path, key: str) -> None:
    """Refuse a path that no file can be written to, before hours of work are spent on it.

    Args:
        path: the file that is to be written; its folders may be missing.
        key: the key that names it, for the message.

    Raises:
        ValueError: it is a folder, or below something that is none.
    """
    above = next(folder for folder in path.parents if folder.exists() or folder == folder.parent)
    if path.is_dir() or not above.is_dir():
        what = path if path.is_dir() else above
        raise ValueError(
            f"{key} names {one_line(path)}, but {one_line(what)} is {'a folder' if path.is_dir() else 'a file'}: name "
            "a file in a folder"
        )
