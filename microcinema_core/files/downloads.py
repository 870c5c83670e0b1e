"""Pinned downloads: a file with a known hash, checked and then placed whole.

Imports the standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit

from .scratch import scratch_folder

logger = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def fetch_pinned(target: Path, what: str, sha256: str, download: Callable[[Path], Path]) -> Path:
    """Return `target`, downloaded unless it is there; its hash is checked either way.

    A file that is there with another hash is broken or half: it is removed and fetched again.

    Args:
        target: the file's final place. A download with another hash never gets there.
        what: name and version of the file, for the log and for errors.
        sha256: the pinned hash in hexadecimal.
        download: writes the file into an empty folder that it is given, and returns the file's path.

    Raises:
        ValueError: the downloaded file has another hash.
        OSError: `download` failed, or the target's folder cannot be written to.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if _is_there(target, what, sha256):
            return target
        logger.info("fetching %s", what)
        with scratch_folder(target.parent) as scratch:
            downloaded = download(scratch)
            _check_received(downloaded, what, sha256)
            os.replace(downloaded, target)
    except OSError as error:
        if not _is_about(error, target.parent):
            raise
        raise OSError(
            f"{what} cannot be kept in {target.parent} ({error.strerror}): make room there, or name another folder, "
            "which can be written to, by MICROCINEMA_HOME"
        ) from error
    return target


def _is_about(error: OSError, folder: Path) -> bool:
    """Return whether the error came from writing to the folder; a full disk is often told without a file's name."""
    if error.errno in _FULL:
        return True
    if error.errno is None or not isinstance(error.filename, str):
        return False
    named = Path(error.filename)
    return named.is_relative_to(folder) or folder.is_relative_to(named)


def _is_there(target: Path, what: str, sha256: str) -> bool:
    """Return whether the file is there with its hash; one with another hash is removed."""
    if not (target.exists() or target.is_symlink()):
        return False
    if target.is_file() and hash_of(target) == sha256:
        return True
    logger.warning("%s is not %s, or not all of it: it is removed and fetched again", target, what)
    target.unlink()
    return False


def hash_of(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_hash(path: Path, what: str, sha256: str) -> None:
    """Check that a file is the one that was pinned.

    Raises:
        ValueError: its hash is another one.
    """
    found = hash_of(path)
    if found != sha256:
        raise ValueError(
            f"{path} has sha256 {found}, but {what} should have {sha256}; delete the file and fetch it again"
        )


def _check_received(path: Path, what: str, sha256: str) -> None:
    found = hash_of(path)
    if found == sha256:
        return
    with path.open("rb") as file:
        page = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    seen = "a web page, perhaps a proxy's," if page else f"a file of {path.stat().st_size} bytes"
    raise ValueError(
        f"{seen} with sha256 {found} was received, but {what} should have {sha256}; it is deleted: check the network "
        "and the configured package index, and fetch it again"
    )


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other web addresses, but none from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request of the new address."""
        if urlsplit(newurl).scheme not in ("https", urlsplit(req.full_url).scheme):
            raise HTTPError(req.full_url, code, f"a redirect to {newurl} is not followed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download_url(address: str, path: Path, timeout: float = 60) -> None:
    """Download a web address into a new file.

    Raises:
        OSError: the address is no https or http one, cannot be reached, leads elsewhere, or sent less than announced.
    """
    place = f"{urlsplit(address).hostname}{urlsplit(address).path}"  # without a password
    if urlsplit(address).scheme not in ("https", "http"):
        raise OSError(f"{place} cannot be downloaded: the address has to begin with https:// or http://")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _WebOnly,
    ):
        opener.add_handler(handler())
    try:
        with opener.open(address, timeout=timeout) as response, path.open("xb") as file:
            shutil.copyfileobj(response, file)
            announced, received = response.headers.get("Content-Length"), file.tell()
    except (http.client.HTTPException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        text = str(getattr(error, "reason", None) or error) or type(error).__name__
        reason = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        raise OSError(f"{place} cannot be downloaded ({reason}); check the network, and try again") from error
    if announced is not None and received != int(announced):
        raise OSError(f"{place} was cut off after {received} of {announced} bytes; try again")
