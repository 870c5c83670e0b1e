"""Pinned downloads: placed only with the right hash, fetched only once, and nothing left over; scratch folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from microcinema_core.files.downloads import download_url, fetch_pinned
from microcinema_core.files.scratch import remove_leftovers, scratch_folder

CONTENT = b"the pinned file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and modes")


def download(folder: Path) -> Path:
    assert not list(folder.iterdir())
    (folder / "part").write_bytes(CONTENT)
    return folder / "part"


def fail(folder: Path) -> Path:
    raise OSError("there is no network")


def test_a_pinned_file_is_downloaded_once(tmp_path: Path) -> None:
    target = tmp_path / "downloads" / "file.tgz"
    assert fetch_pinned(target, "file 1.0", SHA256, download) == target
    assert fetch_pinned(target, "file 1.0", SHA256, fail) == target
    assert target.read_bytes() == CONTENT
    assert [file.name for file in target.parent.iterdir()] == ["file.tgz"]


def test_a_download_with_another_hash_is_not_placed(tmp_path: Path) -> None:
    target = tmp_path / "file.tgz"
    with pytest.raises(
        ValueError, match=r"a file of 15 bytes .* file 1\.0 should have 0000; it is deleted: check"
    ):
        fetch_pinned(target, "file 1.0", "0000", download)
    assert not list(tmp_path.iterdir())


def test_a_proxys_page_is_called_by_its_name(tmp_path: Path) -> None:
    def page(folder: Path) -> Path:
        (folder / "part").write_bytes(b"\r\n <!DOCTYPE html><html><title>Sign in</title></html>")
        return folder / "part"

    with pytest.raises(ValueError, match=r"^a web page, perhaps a proxy's, with sha256 .* check the network"):
        fetch_pinned(tmp_path / "file.tgz", "file 1.0", SHA256, page)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("held", [b"", CONTENT[:-1], CONTENT + b"\n", b"something else"])
def test_a_broken_file_is_removed_and_fetched_again(held: bytes, tmp_path: Path) -> None:
    target = tmp_path / "file.tgz"
    target.write_bytes(held)
    with pytest.raises(OSError, match="no network"):
        fetch_pinned(target, "file 1.0", SHA256, fail)
    assert not list(tmp_path.iterdir())
    target.write_bytes(held)
    fetch_pinned(target, "file 1.0", SHA256, download)
    assert target.read_bytes() == CONTENT


def test_what_a_broken_link_points_to_is_let_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"the user's own")
    for points_to in (elsewhere, tmp_path / "absent"):
        target = tmp_path / "downloads" / "file.tgz"
        target.parent.mkdir(exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(points_to)
        fetch_pinned(target, "file 1.0", SHA256, download)
        assert target.read_bytes() == CONTENT and not target.is_symlink()
    assert elsewhere.read_bytes() == b"the user's own"
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("reset"), ValueError("odd")])
def test_an_interrupted_download_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    def interrupted(folder: Path) -> Path:
        (folder / "half").write_bytes(CONTENT[:5])
        raise error

    with pytest.raises(type(error)):
        fetch_pinned(tmp_path / "downloads" / "file.tgz", "file 1.0", SHA256, interrupted)
    assert not list((tmp_path / "downloads").iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^file 1\.0 cannot be kept in .*file/downloads \(.*\): make room"):
        fetch_pinned(tmp_path / "file" / "downloads" / "file.tgz", "file 1.0", SHA256, download)

    def full(folder: Path) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"cannot be kept in .* \(No space left on device\).*MICROCINEMA_HOME"):
        fetch_pinned(tmp_path / "file.tgz", "file 1.0", SHA256, full)

    def read_only(**_: object) -> str:
        raise OSError(30, "Read-only file system", str(tmp_path / ".x"))

    (tmp_path / "there").write_bytes(CONTENT)
    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    assert fetch_pinned(tmp_path / "there", "file 1.0", SHA256, fail) == tmp_path / "there"
    with pytest.raises(OSError, match=r"\(Read-only file system\).*MICROCINEMA_HOME"):
        fetch_pinned(tmp_path / "file.tgz", "file 1.0", SHA256, download)


class Site(BaseHTTPRequestHandler):
    """Answers as the path says."""

    def do_GET(self) -> None:
        kind = self.path.removeprefix("/")
        if kind.startswith("to-"):
            self.send_response(302)
            self.send_header(
                "Location",
                {"to-file": "file:///etc/hostname", "to-ftp": "ftp://127.0.0.1/x"}.get(kind, "/good"),
            )
            self.end_headers()
        elif kind == "missing":
            self.send_error(404)
        elif kind == "nonsense":
            self.wfile.write(b"\x00\x01 what?\r\n\r\n")
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT) + (9 if kind == "short" else 0)))
            self.end_headers()
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_web_address_is_downloaded_through_redirects(site: str, tmp_path: Path) -> None:
    for number, path in enumerate(("good", "to-good")):
        download_url(f"{site}/{path}", tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("to-file", "file:///etc/hostname"),
        ("to-ftp", "ftp://127.0.0.1/x"),
        ("missing", "Not Found"),
        ("nonsense", "cannot be downloaded"),
        ("short", r"cut off after 15 of 24 bytes"),
    ],
)
def test_what_the_web_does_not_give_is_one_sentence(
    path: str, reason: str, site: str, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=reason) as error:
        download_url(f"{site}/{path}", tmp_path / "file")
    assert str(error.value).startswith(f"127.0.0.1/{path} ") and "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "/etc/hostname"])
def test_only_web_addresses_are_downloaded(address: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="has to begin with https:// or http://"):
        download_url(address, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_password_in_an_address_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error:
        download_url("http://user:secret@127.0.0.1:9/x", tmp_path / "file")
    assert "secret" not in str(error.value)


HOLD = """
import sys, time
from pathlib import Path
from microcinema_core.files.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x")
    print("ready", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds a scratch folder in `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@posix
def test_what_a_killed_process_leaves_is_removed_at_the_next_start(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        (left,) = tmp_path.iterdir()
        remove_leftovers(tmp_path)
        assert (left / "files" / "half").read_bytes() == b"x", "a running process keeps its files"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert left.exists()
    with scratch_folder(tmp_path) as folder:
        assert not left.exists()
        assert not list(folder.iterdir())
    assert not list(tmp_path.iterdir())


def test_nothing_else_is_taken_for_a_leftover(tmp_path: Path) -> None:
    """Neither the user's files, nor a link, nor a folder that a process has just begun."""
    outside = tmp_path / "outside"
    (outside / "files").mkdir(parents=True)
    (outside / ".lock").write_text("")
    parent = tmp_path / "parent"
    names = ("mine.unfinished", ".mine.tmp", ".microcinema-x", ".microcinema-begun.unfinished")
    for name in names:
        (parent / name).mkdir(parents=True)
    (parent / ".microcinema-file.unfinished").write_text("")
    (parent / ".microcinema-link.unfinished").symlink_to(outside)
    before = sorted(parent.iterdir())
    remove_leftovers(parent)
    assert sorted(parent.iterdir()) == before and (outside / "files").is_dir()
    old = time.time() - 7200
    os.utime(parent / ".microcinema-begun.unfinished", (old, old))
    remove_leftovers(parent)
    assert not (parent / ".microcinema-begun.unfinished").exists()


@posix
def test_a_scratch_folder_is_ones_own(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as one, scratch_folder(tmp_path) as other:
        assert one != other
        for folder in (one, other):
            assert folder.parent.stat().st_mode & 0o077 == 0, "nobody else can put a link into it"


def test_many_processes_at_once_do_not_take_each_others_folders(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from microcinema_core.files.scratch import scratch_folder
for number in range(150):
    with scratch_folder(Path(sys.argv[1])) as folder:
        (folder / "x").write_text("x")
        assert (folder / "x").read_text() == "x"
"""
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert not list(tmp_path.iterdir())
