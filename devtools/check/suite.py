"""`dev.py test`: lint, format, types and all tests, including those with the real ComfyUI and a browser."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..run.browser import find_or_install_chromium
from ..run.home import ROOT, Problem, child_environment, home, say
from ..run.host import find_host
from ..run.server import PACK, link_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dev.py test`."""
    parser.add_argument("--quick", action="store_true", help="skip slow, host and browser tests")
    parser.add_argument(
        "tests", nargs="*", metavar="TEST", help="files or folders under tests/ (default: all)"
    )


def main(arguments: argparse.Namespace) -> None:
    """Run every check, even if an earlier one fails.

    Raises:
        Problem: at least one check failed; the message names them.
    """
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
        environ = {**child_environment(), "COMFYUI_PATH": str(find_host(arguments.comfyui).path)}
        failed = [name for name, command, folder in checks if not _passes(name, command, folder, environ)]
    if failed:
        raise Problem(f"Failed: {', '.join(failed)}.")
    say("All checks passed.")


def _selection(arguments: argparse.Namespace) -> list[str]:
    if arguments.quick:
        chosen = ["-m", "not slow and not host and not browser"]
    else:
        chosen = [] if _has_browser() else ["-m", "not browser"]
    if arguments.tests:
        return [*chosen, *arguments.tests]
    short = " and ".join([*chosen[1:], "not long"])
    return ["-m", short, *_workers(), "tests"]


def _workers() -> list[str]:
    """Return pytest options for two workers, each with its own ComfyUI; one worker on a single core.

    Files keep their order, in which those with the longest tests come first (tests/conftest.py).
    """
    return ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"] if (os.cpu_count() or 1) > 1 else []


@contextlib.contextmanager
def _as_package() -> Iterator[Path]:
    """Yield a folder that contains the checkout as a package with a known name, as custom_nodes does."""
    with tempfile.TemporaryDirectory() as folder:
        link_folder(ROOT, Path(folder) / PACK)
        yield Path(folder)


def _passes(name: str, command: list[str], folder: Path, environ: dict[str, str]) -> bool:
    say(f"== {name}")
    start = time.monotonic()
    code = subprocess.call([sys.executable, "-m", *command], cwd=folder, env=environ)
    say(f"== {name}: {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - start:.0f} s")
    return code == 0


def _has_browser() -> bool:
    if find_or_install_chromium():
        return True
    say("SKIPPED: the browser tests. They need chromium, which is missing and cannot be installed from here.")
    return False
