"""The errors of a command line as one sentence on stderr and an exit code."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable

from .messages import of_file, one_line
from .optional_deps import install_hint


def guarded(command: Callable[[], int], *, extra: str) -> int:
    """Run a resumable command, and return its exit code: its own, 1 stopped, 2 wrong input, 130 interrupted.

    Args:
        command: what to run.
        extra: that of pyproject.toml which brings the command's libraries.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return command()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{install_hint(error, extra)}\n")
        return 1
    except ValueError as error:
        sys.stderr.write(f"{one_line(error)}\n")
        return 2
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some room" if full else "fix that"
        sys.stderr.write(
            f"{of_file(error)}; finished work is kept: {advice} and run the same command again\n"
        )
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; finished work is kept: run the same command again to continue\n")
        return 130
