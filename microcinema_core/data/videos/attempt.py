"""Process one unit of a job, with retries, so that the same work is never done or counted twice.

A unit's result is a file that appears atomically, under a name that is a hash of its content. A second worker, a second
run and a run after a crash therefore find out in the same way what is still pending.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...messages import reason
from .plan import WorkUnit

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
FATAL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that a retry does not help: disk full, quota exceeded, read-only."""

CRASHED = f"it ended the process {MAX_ATTEMPTS} times; one of its files makes a library crash"

ProcessUnit = Callable[[WorkUnit], None]
"""Function that does a job's work for one unit, with the models that the job loaded."""


class Job(Protocol):
    """What is done to every unit. It is small and can be sent to another process, which loads the models there."""

    @property
    def out(self) -> Path:
        """The folder of the results."""
        ...

    def done(self, unit: WorkUnit) -> bool:
        """Return whether a unit needs no more work."""
        ...

    def start(self) -> ProcessUnit:
        """Load what the work needs, and return the function that processes a unit."""
        ...


@dataclass(frozen=True)
class UnitResult:
    """The name of a processed unit; `error` is "" or why it failed."""

    unit: str
    error: str = ""


def attempt(job: Job, process: ProcessUnit, unit: WorkUnit) -> UnitResult:
    """Process a unit, with up to MAX_ATTEMPTS attempts.

    Attempts that end the whole process are not counted here: only a process that outlives them can tell them from a
    machine that went down.

    Raises:
        OSError: the disk is full or read-only.
    """
    if job.done(unit):
        return UnitResult(unit.name)
    error = ""
    for number in range(1, MAX_ATTEMPTS + 1):
        try:
            process(unit)
            return UnitResult(unit.name)
        except OSError as problem:
            if problem.errno in FATAL_ERRNOS:
                raise
            error = reason(problem)
            logger.warning("unit %s, attempt %d: %s", unit.name, number, error)
        except Exception as problem:
            error = f"{type(problem).__name__}: {reason(problem)}"
            last = number == MAX_ATTEMPTS
            logger.warning("unit %s, attempt %d: %s", unit.name, number, error, exc_info=last)
    return UnitResult(unit.name, error)
