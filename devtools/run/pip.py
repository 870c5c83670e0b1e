"""pip in a subprocess: quiet, with one line of progress, its whole output in a log file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .home import Problem, home

_NOISE = ("WARNING: Location", "[notice]", "WARNING: Running pip as")


def run_pip(python: Path | str, arguments: list[str], what: str) -> None:
    """Run `python -m pip ARGUMENTS`; on failure raise Problem with pip's own last error line."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    log = home() / "logs" / "pip.log"
    log.parent.mkdir(exist_ok=True)
    errors: list[str] = []
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_NOISE) or not line.strip():
                continue
            file.write(line)
            _progress(what, line.strip())
            if line.startswith("ERROR:"):
                errors.append(line.removeprefix("ERROR:").strip())
    _progress(what, "")
    if process.returncode:
        reason = errors[-1] if errors else f"exit code {process.returncode}"
        raise Problem(f"{what} failed: {reason} (pip's whole output is in {log}).")


def _progress(what: str, line: str) -> None:
    if not sys.stderr.isatty():
        return
    width = shutil.get_terminal_size().columns - 1
    shown = f"{what}: {line}"[:width] if line else ""
    sys.stderr.write(f"\r{shown:<{width}}" + ("" if line else "\r"))
    sys.stderr.flush()


def any_pip() -> Path:
    """Return a Python that has pip: this one, else that of a small environment made for the purpose."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return Path(sys.executable)
    folder = home() / "pip-env"
    if not python_in(folder).exists():
        make_venv(folder)
    return python_in(folder)


def make_venv(folder: Path) -> None:
    """Make a plain virtual environment with pip at `folder`."""
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", "venv", str(folder)]
        code = subprocess.call(command, stdout=output, stderr=output)
        output.seek(0)
        text = output.read()
    if code:
        shutil.rmtree(folder, ignore_errors=True)
        hint = (
            "install Debian's python3-venv" if "ensurepip" in text else f"the reason: {text.strip()[-200:]}"
        )
        raise Problem(f"Python cannot make a virtual environment: {hint}, or pass --venv PATH.")


def python_in(venv: Path) -> Path:
    """Return the interpreter of the environment at `venv` (a path to an interpreter is taken as it is)."""
    if venv.is_file():
        return venv
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
