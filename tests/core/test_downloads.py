"""Pinned downloads: placed only with the right hash, and fetched only once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from microcinema_core.files.downloads import fetch_pinned

CONTENT = b"the pinned file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def download(folder: Path) -> Path:
    assert not list(folder.iterdir())
    (folder / "part").write_bytes(CONTENT)
    return folder / "part"


def test_a_pinned_file_is_downloaded_once(tmp_path: Path) -> None:
    target = tmp_path / "downloads" / "file.tgz"
    assert fetch_pinned(target, "file 1.0", SHA256, download) == target

    def fail(folder: Path) -> Path:
        raise OSError("there is no network")

    assert fetch_pinned(target, "file 1.0", SHA256, fail) == target
    assert target.read_bytes() == CONTENT
    assert [file.name for file in target.parent.iterdir()] == ["file.tgz"]


def test_a_download_with_another_hash_is_not_placed(tmp_path: Path) -> None:
    target = tmp_path / "file.tgz"
    with pytest.raises(ValueError, match=r"file 1\.0 should have 0000; delete the file and fetch it again"):
        fetch_pinned(target, "file 1.0", "0000", download)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "file.tgz"
    target.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"file 1\.0 should have"):
        fetch_pinned(target, "file 1.0", SHA256, download)
