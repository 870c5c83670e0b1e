"""The Python environment of dev.py: the active or given one if it is suitable, otherwise our own."""

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

from .home import ROOT, Problem, cannot_write, child_environment, home, lock, replace_process, say
from .host import Host
from .pip import make_venv, python_in, run_pip

RESTARTED = "MICROCINEMA_RESTARTED"
"""Set for a dev.py that another dev.py started in its environment, so that it does not start a third."""
TORCHAUDIO = "torchaudio==2.11.1"

_CHECK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
missing, mismatched = [], []
for line in json.load(sys.stdin):
    need = Requirement(line)
    if need.marker and not need.marker.evaluate():
        continue
    try:
        found = version(need.name)
    except PackageNotFoundError:
        missing.append(need.name)
        continue
    if not need.specifier.contains(found.split("+")[0], prereleases=True):
        mismatched.append(f"{need.name} {found} (wanted {need.specifier})")
print(json.dumps([missing, mismatched]))
"""


@dataclass(frozen=True)
class Environment:
    """A Python that can run the host, the tests and the training."""

    python: Path

    def is_current(self) -> bool:
        """Return whether this process runs in it."""
        return os.path.abspath(sys.executable) == os.path.abspath(self.python)  # noqa: PTH100

    def restart_in(self, arguments: list[str]) -> None:
        """Replace this process by the environment's Python with these arguments."""
        replace_process([str(self.python), *arguments], {**self.environ(), RESTARTED: "1"})

    def environ(self) -> dict[str, str]:
        """Return the environment variables for commands that run in it."""
        folders = [str(self.python.parent), os.environ.get("PATH", "")]
        return {**child_environment(), "PATH": os.pathsep.join(folders), "MICROCINEMA_HOME": str(home())}


def all_requirements(host: Host) -> list[str]:
    """Return all requirement lines: those of the pack, of its developers, and of this ComfyUI."""
    files = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
    lines = [
        line.split("#")[0].strip() for file in files for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in lines if line and not line.startswith("-")] + host.requirements()


def find_environment(host: Host, given: str | None = None) -> Environment:
    """Return the environment to use; build one (about two minutes) if there is none.

    Args:
        host: the ComfyUI that has to run in it.
        given: the path of an environment to use as it is (also $MICROCINEMA_VENV).

    Raises:
        Problem: the given environment does not exist or lacks packages.
    """
    requirements = all_requirements(host)
    given = given or os.environ.get("MICROCINEMA_VENV")
    if given:
        return _given_environment(Path(given).expanduser().absolute(), requirements)
    folder = home() / "envs" / _key(requirements)
    own = Environment(python_in(folder))
    is_ready = (folder / "ready.json").is_file() and own.python.exists()
    if is_ready and own.is_current():
        return own
    lacking = _active_environment_lacks(requirements)
    if lacking is not None and not lacking:
        return Environment(Path(sys.executable))
    if is_ready:
        return own
    if lacking:
        say(f"The active environment is not used: it lacks {_listed(lacking)}.")
    with lock("environment"):
        if not (folder / "ready.json").is_file():
            _build(folder, requirements, host)
    return own


def has_gpu(python: Path | str) -> bool:
    """Return whether torch finds a GPU; torch is imported only if the system has a device at all."""
    if sys.platform == "linux" and not any(
        Path(device).exists()
        for device in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/dri")
    ):
        return False
    code = (
        "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available()"
        " or (hasattr(torch, 'xpu') and torch.xpu.is_available()))"
    )
    result = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return result.stdout.strip() == "True"


def _active_environment_lacks(requirements: list[str]) -> list[str] | None:
    """Return what the active environment lacks, or None if none is active."""
    if sys.prefix == sys.base_prefix and not os.environ.get("CONDA_PREFIX"):
        return None
    try:
        missing, mismatched = _unmet_requirements(Path(sys.executable), requirements)
    except Problem:
        return ["pip, which lists its packages"]
    return missing + mismatched


def _key(requirements: list[str]) -> str:
    version = f"{sys.platform} {sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256("\n".join([version, *requirements]).encode()).hexdigest()[:12]


def _given_environment(path: Path, requirements: list[str]) -> Environment:
    python = python_in(path)
    if not python.exists():
        raise Problem(f"--venv names {path}, but there is no Python environment there.")
    missing, mismatched = _unmet_requirements(python, requirements)
    if missing:
        raise Problem(f"The environment {path} lacks {_listed(missing)}: install requirements-dev.txt there.")
    if mismatched:
        say(f"Note: {path} has {_listed(mismatched)}.")
    return Environment(python)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _unmet_requirements(python: Path, requirements: list[str]) -> tuple[list[str], list[str]]:
    """Return (missing packages, packages of another version) of the environment of `python`."""
    result = subprocess.run(
        [str(python), "-c", _CHECK], input=json.dumps(requirements), capture_output=True, text=True
    )
    if result.returncode:
        raise Problem(f"The packages of {python} cannot be listed: {result.stderr.strip()[-200:]}")
    missing, mismatched = json.loads(result.stdout)
    return missing, mismatched


def _build(folder: Path, requirements: list[str], host: Host) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder.parent, error) from error
    say(f"Building the Python environment {folder} (once; a few minutes, about 7 GB with CUDA libraries) ...")
    start = time.monotonic()
    make_venv(folder)
    python = python_in(folder)
    try:
        listed = folder / "requirements.txt"
        listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        run_pip(python, ["install", "-r", str(listed)], "Installing")
        _try_torchaudio(python, host)
        seconds = round(time.monotonic() - start)
        made = {"seconds": seconds, "python": sys.version.split()[0], "host": host.version}
        (folder / "ready.part").write_text(json.dumps(made), encoding="utf-8")
        os.replace(folder / "ready.part", folder / "ready.json")
    except OSError as error:
        raise cannot_write(folder, error) from error
    say(f"The environment is ready after {seconds} s.")


def _try_torchaudio(python: Path, host: Host) -> None:
    """Install torchaudio if possible: newer hosts import it at start, older ones for audio nodes only."""
    file = host.path / "requirements.txt"
    if file.is_file() and "torchaudio" in file.read_text(encoding="utf-8", errors="replace"):
        try:
            run_pip(python, ["install", "--no-deps", TORCHAUDIO], "Installing torchaudio")
        except Problem as problem:
            say(f"Note: the host's audio nodes will be missing. {problem}")
