"""Where things live: $MICROCINEMA_HOME, the checkout, and a lock between processes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(os.path.abspath(__file__)).parents[2]  # noqa: PTH100  (symlinks in custom_nodes must stay)


class Problem(RuntimeError):
    """Something a person has to know or do; the message is one clear sentence."""


def home() -> Path:
    """Return $MICROCINEMA_HOME, or `microcinema` in the user's cache directory; made when absent."""
    given = os.environ.get("MICROCINEMA_HOME")
    if given:
        folder = Path(given).expanduser().absolute()
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData/Local"))) / "microcinema"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library/Caches/microcinema"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "microcinema"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(
            f"Cannot make {folder} ({error.strerror}): set MICROCINEMA_HOME to a writable folder."
        ) from error
    return folder


def calm_environment() -> dict[str, str]:
    """Return the process environment in which torch's threads sleep while they wait for one another.

    By default they spin: with another process on the same cores a step of a small network then takes up to
    fifty times as long. On an idle machine it makes no difference.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}


def say(text: str) -> None:
    """Tell the person at the terminal (standard error, so that the last line of stdout stays the result)."""
    print(text, file=sys.stderr, flush=True)


def replace_process(command: list[str], environ: dict[str, str]) -> NoReturn:
    """Become `command`: exec where the system has it, else run it and leave with its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execve(command[0], command, environ)
    import subprocess

    raise SystemExit(subprocess.call(command, env=environ))


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold `name` against other processes of this machine, where the system can lock files."""
    with (home() / f"{name}.lock").open("w") as file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"Waiting for another dev.py that prepares {name} ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
