"""Units are worked off: here, in processes, or on Ray. What fails is tried again, and no unit counts twice.

A unit's result is a file that appears at once or not at all, under a name that is its content's: so a second worker,
a second run and a run after a crash all find out the same way what is left to do.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .jobs import Job, Work
from .plan import Unit

logger = logging.getLogger(__name__)

TRIES = 3
GIVE_UP = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that trying again does not help: disk full, quota, read-only."""


@dataclass(frozen=True)
class Result:
    """A unit that was worked on; `error` is "" or why it could not be done."""

    unit: str
    error: str = ""


@dataclass(frozen=True)
class Workers:
    """processes: 1 works here. ray: None, "" for a Ray of this machine alone, or a cluster's address.
    gpus: of each worker, on Ray."""

    processes: int = 1
    ray: str | None = None
    gpus: float = 0.0


def run(job: Job, units: Sequence[Unit], workers: Workers) -> list[Result]:
    """Work off all units that are not done yet; those that fail are results with an error.

    Raises:
        OSError: the disk is full or read-only; what is done stays.
    """
    todo = [unit for unit in units if not job.done(unit)]
    results, started = [], time.monotonic()
    for result in work_off(job, todo, workers):
        results.append(result)
        logger.info("%d of %d units, %.0f s", len(results), len(todo), time.monotonic() - started)
    return results


def work_off(job: Job, units: Sequence[Unit], workers: Workers) -> Iterator[Result]:
    """Results of these units as they come."""
    if workers.ray is not None:
        from . import on_ray

        return on_ray.work_off(job, units, workers)
    alone = workers.processes == 1 or len(units) == 1
    return _here(job, units, workers) if alone else _processes(job, units, workers)


def _here(job: Job, units: Sequence[Unit], workers: Workers) -> Iterator[Result]:
    if not units:
        return
    work = job.start()
    yield from (attempt(job, work, unit) for unit in units)


_worker: dict[str, Any] = {}


def _start(job: Job) -> None:
    import torch

    torch.set_num_threads(1)
    _worker["job"], _worker["work"] = job, job.start()


def _task(unit: Unit) -> Result:
    return attempt(_worker["job"], _worker["work"], unit)


def _processes(job: Job, units: Sequence[Unit], workers: Workers) -> Iterator[Result]:
    """A process that dies (a decoder's crash, no memory) is replaced; its units come again."""
    left = {unit.name: unit for unit in units}
    context = multiprocessing.get_context("spawn")
    deaths = 0
    while left:
        before = len(left)
        try:
            with ProcessPoolExecutor(workers.processes, context, _start, (job,)) as pool:
                for result in _in_order_of_arrival(pool, list(left.values()), 2 * workers.processes):
                    del left[result.unit]
                    yield result
        except BrokenProcessPool as error:
            deaths = deaths + 1 if len(left) == before else 0
            if deaths > TRIES:
                raise RuntimeError(
                    "the workers die as they start; run with --workers 1 to see why"
                ) from error
            logger.warning("a worker died; %d units are left and are tried again", len(left))


def _in_order_of_arrival(pool: ProcessPoolExecutor, units: list[Unit], ahead: int) -> Iterator[Result]:
    """Results as they come, with no more than `ahead` units handed out: a million would fill the memory."""
    waiting: set[Future[Result]] = set()
    queue = iter(units)
    while True:
        for unit in queue:
            waiting.add(pool.submit(_task, unit))
            if len(waiting) >= ahead:
                break
        if not waiting:
            return
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def attempt(job: Job, work: Work, unit: Unit) -> Result:
    """Do a unit, up to TRIES times; those that ended the whole process count, in this run and in earlier ones.

    Raises:
        OSError: the disk is full or read-only.
    """
    if job.done(unit):
        return Result(unit.name)
    error = ""
    while (times := _mark(job.out, unit)) <= TRIES:
        try:
            work(unit)
        except OSError as problem:
            if problem.errno in GIVE_UP:
                _unmark(job.out, unit)
                raise
            error = str(problem)
            logger.warning("unit %s, try %d: %s", unit.name, times, error)
        except KeyboardInterrupt:
            _unmark(job.out, unit)
            raise
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            logger.warning("unit %s, try %d: %s", unit.name, times, error, exc_info=times == TRIES)
        else:
            _unmark(job.out, unit)
            return Result(unit.name)
    return Result(
        unit.name, error or f"it ended the process {TRIES} times; one of its files makes a library crash"
    )


def _marks(out: Path) -> Path:
    return out / "attempts"


def _mark(out: Path, unit: Unit) -> int:
    """Count an attempt on disk, as a crash leaves nothing else behind; returns which one it is."""
    path = _marks(out) / unit.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b".")
        file.flush()
        return os.fstat(file.fileno()).st_size


def _unmark(out: Path, unit: Unit) -> None:
    (_marks(out) / unit.name).unlink(missing_ok=True)
