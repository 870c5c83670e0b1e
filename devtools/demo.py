"""`dev.py demo`: one video from the shipped models, by the real ComfyUI."""

from __future__ import annotations

import argparse

from .home import Problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of `dev.py demo`."""


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise Problem for what can be seen to fail before anything is installed."""


def main(arguments: argparse.Namespace) -> None:
    """Run the shipped workflow."""
    raise Problem("The demo's workflow is not there yet.")
