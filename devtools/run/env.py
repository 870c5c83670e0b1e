"""The Python environment of dev.py: an active or given one that satisfies the requirements, else our own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .home import ROOT, Problem, calm_environment, home, lock, replace_process, say
from .host import Host
from .pip import make_venv, python_in, run_pip

BECAME = "MICROCINEMA_BECAME"  # set for the process that another dev.py became: it becomes no third

_CHECK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
absent, other = [], []
for line in json.load(sys.stdin):
    need = Requirement(line)
    if need.marker and not need.marker.evaluate():
        continue
    try:
        found = version(need.name)
    except PackageNotFoundError:
        absent.append(need.name)
        continue
    if not need.specifier.contains(found.split("+")[0], prereleases=True):
        other.append(f"{need.name} {found} (wanted {need.specifier})")
print(json.dumps([absent, other]))
"""


@dataclass(frozen=True)
class Environment:
    """A Python that can run the host, the tests and the training."""

    python: Path

    def is_current(self) -> bool:
        """Whether this very process runs in it."""
        return os.path.abspath(sys.executable) == os.path.abspath(self.python)  # noqa: PTH100

    def become(self, arguments: list[str]) -> None:
        """Replace this process by the environment's Python, the checkout on its path."""
        replace_process([str(self.python), *arguments], {**self.environ(), BECAME: "1"})

    def environ(self) -> dict[str, str]:
        """The process environment for commands that run in it."""
        folders = [str(self.python.parent), os.environ.get("PATH", "")]
        return {**calm_environment(), "PATH": os.pathsep.join(folders), "MICROCINEMA_HOME": str(home())}


def wanted(host: Host) -> list[str]:
    """All requirement lines: the pack's, the developer's, and those of the ComfyUI at hand."""
    files = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
    lines = [line.split("#")[0].strip() for file in files for line in file.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("-")] + host.requirements()


def find_environment(host: Host, given: str | None = None) -> Environment:
    """Return the environment to use; make it (about two minutes) when there is none."""
    requirements = wanted(host)
    given = given or os.environ.get("MICROCINEMA_VENV")
    if given:
        return _given(Path(given).expanduser().absolute(), requirements)
    folder = home() / "envs" / _key(requirements)
    ready = Environment(python_in(folder))
    is_ready = (folder / "ready.json").is_file() and ready.python.exists()
    if is_ready and ready.is_current():
        return ready
    lacking = _active_lacks(requirements)
    if lacking is not None and not lacking:
        return Environment(Path(sys.executable))
    if is_ready:
        return ready
    if lacking:
        say(f"The active environment is left alone: it lacks {_listed(lacking)}.")
    with lock("environment"):
        if not (folder / "ready.json").is_file():
            _make(folder, requirements, host)
    return ready


def _active_lacks(requirements: list[str]) -> list[str] | None:
    """Return what the active environment lacks; None where none is active."""
    if sys.prefix == sys.base_prefix and not os.environ.get("CONDA_PREFIX"):
        return None
    try:
        absent, other = _lacking(Path(sys.executable), requirements)
    except Problem:
        return ["pip, to ask it for its packages"]
    return absent + other


def _key(requirements: list[str]) -> str:
    version = f"{sys.platform} {sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256("\n".join([version, *requirements]).encode()).hexdigest()[:12]


def _given(path: Path, requirements: list[str]) -> Environment:
    python = python_in(path)
    if not python.exists():
        raise Problem(f"--venv names {path}, but there is no Python environment there.")
    absent, other = _lacking(python, requirements)
    if absent:
        raise Problem(f"The environment {path} lacks {_listed(absent)}: install requirements-dev.txt there.")
    if other:
        say(f"Note: {path} has {_listed(other)}.")
    return Environment(python)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _lacking(python: Path, requirements: list[str]) -> tuple[list[str], list[str]]:
    """Return (absent packages, packages of another version) of the environment of `python`."""
    result = subprocess.run(
        [str(python), "-c", _CHECK], input=json.dumps(requirements), capture_output=True, text=True
    )
    if result.returncode:
        raise Problem(f"{python} cannot be asked for its packages: {result.stderr.strip()[-200:]}")
    absent, other = json.loads(result.stdout)
    return absent, other


def _make(folder: Path, requirements: list[str], host: Host) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"Making the Python environment {folder} (once; some minutes, about 7 GB with CUDA's libraries) ...")
    start = time.monotonic()
    make_venv(folder)
    python = python_in(folder)
    listed = folder / "requirements.txt"
    listed.write_text("\n".join(requirements) + "\n")
    run_pip(python, ["install", "-r", str(listed)], "Installing")
    _try_torchaudio(python, host)
    seconds = round(time.monotonic() - start)
    part = folder / "ready.json.tmp"
    part.write_text(json.dumps({"seconds": seconds, "python": sys.version.split()[0], "host": host.version}))
    os.replace(part, folder / "ready.json")
    say(f"The environment stands after {seconds} s.")


def _try_torchaudio(python: Path, host: Host) -> None:
    """Newer hosts import torchaudio at start, older ones for audio nodes only: do without if need be."""
    file = host.path / "requirements.txt"
    if file.is_file() and "torchaudio" in file.read_text():
        try:
            run_pip(python, ["install", "--no-deps", "torchaudio"], "Installing torchaudio")
        except Problem as problem:
            say(f"Note: the host's audio nodes will be missing. {problem}")
