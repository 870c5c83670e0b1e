"""`dev.py stop`: end the ComfyUI that `demo --keep` or `serve` started."""

from __future__ import annotations

import argparse
import os
import signal
import time

from .base import kept_base, running_in
from .home import Problem, say

_WAIT = 10.0
"""Seconds that a server is given to end by itself."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dev.py stop`: there are none."""


def main(arguments: argparse.Namespace) -> None:
    """End the server and wait until it has ended; its files and settings stay.

    Raises:
        Problem: none runs.
    """
    base = kept_base()
    server = running_in(base)
    if server is None:
        raise Problem(f"No ComfyUI of dev.py runs in {base}.")
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            os.kill(server.process, number)
        except ProcessLookupError:
            break
        until = time.monotonic() + _WAIT
        while running_in(base) == server and time.monotonic() < until:
            time.sleep(0.1)
        if running_in(base) != server:
            break
    say(f"ComfyUI at {server.url} has ended. Its files are in {base}.")
