"""Archives from elsewhere: all their members are checked before one is read or unpacked.

Only plain files and folders that stay inside the archive's own folder are accepted; otherwise the whole archive is
refused. Imports the standard library only.
"""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

LARGEST = 4 << 30
"""Bytes that an archive may hold, unpacked: those read here hold less than a twentieth."""
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # a zip of a later version
    OverflowError,
    UnicodeError,
)
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that are devices on Windows, with any ending."""


class _Member(NamedTuple):
    name: str
    size: int
    folder: bool
    flaw: str
    """What is wrong with its kind, or an empty string."""


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file, such as a wheel, whose members have been checked.

    Raises:
        ValueError: it is broken, here or later while it is read, or one of its members is unsafe.
    """
    with _told_by(path), zipfile.ZipFile(path) as archive:
        if any(not 0 <= info.header_offset < path.stat().st_size for info in archive.infolist()):
            raise zipfile.BadZipFile("a member lies outside the file")
        _check(path, [_zip_member(info) for info in archive.infolist()])
        yield archive


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar file, compressed by gzip, whose members have been checked.

    Raises:
        ValueError: it is broken, here or later while it is read, or one of its members is unsafe.
    """
    with _told_by(path), tarfile.open(path, "r:gz") as archive:
        _check(path, [_tar_member(info) for info in archive.getmembers()])
        yield archive


def read_zip_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the content of one member.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in archive.namelist():
        raise ValueError(f"{archive.filename} holds no {name}; delete it, so that it is fetched again")
    return archive.read(name)


def read_tar_member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the content of one member.

    Raises:
        ValueError: there is no file of that name.
    """
    infos = [info for info in archive.getmembers() if info.name == name and info.isreg()]
    stream = archive.extractfile(infos[0]) if infos else None
    if stream is None:
        file = str(archive.name)
        raise ValueError(f"{file} holds no {name}; delete it, so that it is fetched again")
    return stream.read()


def unpack_zip(path: Path, target: Path, inside: str = "") -> None:
    """Unpack the files of a zip file into `target`, which is created if it is absent; no file is overwritten.

    Args:
        path: the zip file.
        target: the folder for its content.
        inside: unpack only what lies in this folder of the archive (ends with a slash), without the folder itself.

    Raises:
        ValueError: the archive is broken, or one of its members is unsafe; in the latter case nothing was written.
        OSError: a file cannot be written, or is there already.
    """
    with open_zip(path) as archive:
        target.mkdir(parents=True, exist_ok=True)
        root = target.resolve()
        for info in archive.infolist():
            if info.filename.startswith(inside) and not info.is_dir():
                file = root / info.filename[len(inside) :]
                if not file.resolve().is_relative_to(root):  # a link that was there before
                    _refuse(path, info.filename, f"would be written outside {target}")
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, file.open("xb") as sink:
                    shutil.copyfileobj(source, sink)


@contextmanager
def _told_by(path: Path) -> Iterator[None]:
    """Turn what the libraries raise on broken archives into one sentence that names the file."""
    try:
        yield
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} is a broken or incomplete archive ({reason}); delete it and fetch it again"
        ) from error


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    flaw = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or a device"
    if info.flag_bits & 1:
        flaw = "is encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        flaw = f"is compressed by method {info.compress_type}"
    # `filename` ends at a NUL, and has slashes for backslashes on Windows.
    folder = info.orig_filename.endswith("/") or kind == stat.S_IFDIR
    return _Member(info.orig_filename, info.file_size, folder, flaw)


def _tar_member(info: tarfile.TarInfo) -> _Member:
    plain = info.isdir() or (info.isreg() and not info.issparse())
    return _Member(info.name, info.size, info.isdir(), "" if plain else "is a link or a device")


def _check(path: Path, members: Iterable[_Member]) -> None:
    """Check all members of an archive.

    Raises:
        ValueError: one is unsafe.
    """
    files: set[str] = set()
    folders: set[str] = set()
    total = 0
    for member in members:
        parts = _parts(path, member)
        place = "/".join(parts)
        total += member.size
        if place in files or (place in folders and not member.folder):
            _refuse(path, member.name, "is there twice")
        if files.intersection("/".join(parts[:count]) for count in range(1, len(parts))):
            _refuse(path, member.name, "lies in a folder that is a file as well")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
        (folders if member.folder else files).add(place)
    if total > LARGEST:
        raise ValueError(
            f"{path} is refused, and nothing of it is unpacked: it would take {total} bytes, and at most {LARGEST} are "
            "expected; delete it and fetch it again"
        )


def _parts(path: Path, member: _Member) -> list[str]:
    """Return the parts of a member's name, in a form in which names of one file are equal on every system."""
    name = member.name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if member.flaw:
        _refuse(path, name, member.flaw)
    if name.startswith("/") or "//" in name:  # the latter is absolute without the folder before it
        _refuse(path, name, "has an absolute path")
    if "\\" in name:
        _refuse(path, name, "has a backslash in its name")
    if ":" in name:
        _refuse(path, name, "has a colon in its name, as a drive letter has")
    if any(ord(char) < 32 or char == "\x7f" for char in name):
        _refuse(path, name, "has a control character in its name")
    if any(not part.rstrip(". ") for part in parts):
        _refuse(path, name, "leaves the archive's folder")
    if any(_DEVICE.fullmatch(part.rstrip(". ")) for part in parts):
        _refuse(path, name, "has the name of a device")
    if not parts and not member.folder:
        _refuse(path, name, "has no name")
    return [unicodedata.normalize("NFC", part).casefold().rstrip(". ") for part in parts]


def _refuse(path: Path, name: str, flaw: str) -> NoReturn:
    raise ValueError(
        f"{path} is refused, and nothing of it is unpacked: its member {name!r} {flaw}, and only plain files and "
        "folders inside the archive's own folder are expected; delete it and fetch it again"
    )
