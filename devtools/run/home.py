"""The data folder, the checkout, messages at the terminal, and a lock between processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from microcinema_core.files.locks import lock_file
from microcinema_core.files.paths import home_folder

ROOT = Path(os.path.abspath(__file__)).parents[2]  # noqa: PTH100  (symlinks in custom_nodes must stay)


class Problem(RuntimeError):
    """An error that the user can act on; the message is one clear sentence."""


def run_command(main: Callable[[], None], stopped: str) -> None:
    """Run a command line: a Problem ends it with its sentence, Ctrl-C with `stopped` and exit code 130."""
    try:
        main()
    except Problem as problem:
        sys.exit(f"Error: {problem}")
    except KeyboardInterrupt:
        say(stopped)
        sys.exit(130)


def home() -> Path:
    """Return the data folder, $MICROCINEMA_HOME or its default, and create it if it is absent.

    Raises:
        Problem: the folder cannot be created.
    """
    folder = home_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(
            f"Cannot create {folder} ({error.strerror}): set MICROCINEMA_HOME to a writable folder."
        ) from error
    return folder


def cannot_write(path: Path, error: OSError) -> Problem:
    """Return the error to raise when a file below the data folder cannot be written."""
    return Problem(
        f"{path} cannot be written ({error.strerror or error}): make room there, or set MICROCINEMA_HOME to a folder "
        "that can be written to."
    )


def dev_command(words: str) -> str:
    """Return the command line `dev.py WORDS` as it works in the current folder."""
    script = "dev.py" if Path.cwd() == ROOT.resolve() else shlex.quote(str(ROOT / "dev.py"))
    return f"{'python' if os.name == 'nt' else 'python3'} {script} {words}"


def child_environment() -> dict[str, str]:
    """Return environment variables for child processes in which torch's idle threads sleep.

    By default they spin, which slows a small network down by up to a factor of fifty when another process shares the
    cores. On an idle machine it makes no difference.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}


def say(text: str) -> None:
    """Print a message to standard error, so that the last line of stdout stays the command's result.

    A terminal that is closed, or a log on a full disk, must not end the work that the message is about.
    """
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def replace_process(command: list[str], environ: dict[str, str]) -> NoReturn:
    """Replace this process by `command`; on Windows, run it and exit with its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execve(command[0], command, environ)
    import subprocess

    raise SystemExit(subprocess.call(command, env=environ))


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the lock `name` against other processes; without effect on a file system without locks.

    Raises:
        Problem: the data folder cannot be written to.
    """
    path = home() / f"{name}.lock"
    try:
        file = path.open("a")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        with contextlib.suppress(OSError):
            if not lock_file(file.fileno()):
                say(f"Waiting for another dev.py that prepares {name} ...")
                lock_file(file.fileno(), wait=True)
        yield
