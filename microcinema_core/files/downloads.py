"""Pinned downloads: a file with a known hash, checked and then placed whole."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)


def fetch_pinned(target: Path, what: str, sha256: str, download: Callable[[Path], Path]) -> Path:
    """Return `target`, downloaded unless it is there; its hash is checked either way.

    Args:
        target: the file's final place. A download with another hash never gets there.
        what: name and version of the file, for the log and for errors.
        sha256: the pinned hash in hexadecimal.
        download: writes the file into an empty folder that it is given, and returns the file's path.

    Raises:
        ValueError: the downloaded or the existing file has another hash.
        OSError: `download` failed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        check_hash(target, what, sha256)
        return target
    logger.info("fetching %s", what)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        downloaded = download(Path(scratch))
        check_hash(downloaded, what, sha256)
        os.replace(downloaded, target)
    return target


def check_hash(path: Path, what: str, sha256: str) -> None:
    """Check that a file is the one that was pinned.

    Raises:
        ValueError: its hash is another one.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ValueError(
            f"{path} has sha256 {digest.hexdigest()}, but {what} should have {sha256}; "
            "delete the file and fetch it again"
        )
