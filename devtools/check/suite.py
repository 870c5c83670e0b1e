"""`dev.py test`: lint, format, types and all tests, those with the real ComfyUI and a browser included."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..run.browser import find_chromium
from ..run.home import ROOT, Problem, calm_environment, home, say
from ..run.host import find_host
from ..run.server import PACK, link_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of `dev.py test`."""
    parser.add_argument("--quick", action="store_true", help="leave out slow, host and browser tests")
    parser.add_argument(
        "tests", nargs="*", metavar="TEST", help="files or folders under tests/ (default: all)"
    )


def main(arguments: argparse.Namespace) -> None:
    """Run every check, also when an earlier one failed; Problem names those that failed."""
    mypy = ["mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(home() / "mypy")]
    packages = ["-p", f"{PACK}.microcinema_core", "-p", f"{PACK}.nodes"]
    with _as_package() as parent:
        checks = [
            ("ruff check", ["ruff", "check", "."], ROOT),
            ("ruff format", ["ruff", "format", "--check", "."], ROOT),
            ("mypy of the tools", [*mypy, "dev.py", "devtools", "benchmarks", "mini"], ROOT),
            ("mypy of the pack", [*mypy, *packages], parent),
            ("pytest", ["pytest", "-c", "tests/pytest.ini", *_selection(arguments)], ROOT),
        ]
        environ = {**calm_environment(), "COMFYUI_PATH": str(find_host(arguments.comfyui).path)}
        failed = [name for name, command, folder in checks if not _passes(name, command, folder, environ)]
    if failed:
        raise Problem(f"Failed: {', '.join(failed)}.")
    say("All checks passed.")


def _selection(arguments: argparse.Namespace) -> list[str]:
    if arguments.quick:
        chosen = ["-m", "not slow and not host and not browser"]
    else:
        chosen = [] if _browser_stands() else ["-m", "not browser"]
    if arguments.tests:
        return [*chosen, *arguments.tests]
    return [*chosen, *_shared_out(), "tests"]


def _shared_out() -> list[str]:
    """Two workers take the files in turns, each with a ComfyUI of its own; on one core there is one."""
    return ["-n", "2", "--dist", "loadfile"] if (os.cpu_count() or 1) > 1 else []


@contextlib.contextmanager
def _as_package() -> Iterator[Path]:
    """Yield a folder in which the checkout is a package of a known name, as it is in custom_nodes."""
    with tempfile.TemporaryDirectory() as folder:
        link_folder(ROOT, Path(folder) / PACK)
        yield Path(folder)


def _passes(name: str, command: list[str], folder: Path, environ: dict[str, str]) -> bool:
    say(f"== {name}")
    start = time.monotonic()
    code = subprocess.call([sys.executable, "-m", *command], cwd=folder, env=environ)
    say(f"== {name}: {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - start:.0f} s")
    return code == 0


def _browser_stands() -> bool:
    """Whether there is a chromium; Debian's is installed when root may."""
    if find_chromium():
        return True
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        say("Installing Debian's chromium for the browser tests ...")
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.call(["apt-get", "-qq", *command], env=environ, stdout=subprocess.DEVNULL)
        if find_chromium():
            return True
    say("NOT RUN: the browser tests. They need chromium, which is absent and cannot be installed from here.")
    return False
