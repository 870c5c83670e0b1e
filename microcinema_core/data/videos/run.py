"""Run a job over many units: in this process, in several processes, or on Ray.

Ray runs on one machine or on a cluster whose machines share the folders of videos and results. It restarts workers that
die and gives their units to others; finished units are on disk and are not repeated.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .attempt import MAX_ATTEMPTS, Job, UnitResult, attempt
from .plan import WorkUnit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerOptions:
    """How many workers there are, and where.

    Attributes:
        processes: number of workers; 1 works in this process.
        ray: address of a Ray cluster; "" for a Ray of this machine alone, None for no Ray.
        gpus: GPUs of each worker on Ray.
    """

    processes: int = 1
    ray: str | None = None
    gpus: float = 0.0


def run(job: Job, units: Sequence[WorkUnit], workers: WorkerOptions) -> list[UnitResult]:
    """Process all units that are not done yet; those that fail are results with an error.

    Raises:
        OSError: the disk is full or read-only; finished units stay.
        ValueError: Ray is not installed, or there is no cluster at its address.
    """
    pending = [unit for unit in units if not job.done(unit)]
    results, started = [], time.monotonic()
    for result in process_units(job, pending, workers):
        results.append(result)
        logger.info("%d of %d units, %.0f s", len(results), len(pending), time.monotonic() - started)
    return results


def process_units(job: Job, units: Sequence[WorkUnit], workers: WorkerOptions) -> Iterator[UnitResult]:
    """Yield the results of these units in order of completion; errors as for `run`."""
    if not units:
        return iter(())
    if workers.ray is not None:
        return _on_ray(job, units, workers)
    alone = workers.processes == 1 or len(units) == 1
    return _in_this_process(job, units) if alone else _in_processes(job, units, workers)


def _in_this_process(job: Job, units: Sequence[WorkUnit]) -> Iterator[UnitResult]:
    process = job.start()
    yield from (attempt(job, process, unit) for unit in units)


class Worker:
    """A job in a process of its own: it uses one thread, and loads its models once."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(1)
        self.job, self.process = job, job.start()

    def attempt(self, unit: WorkUnit) -> UnitResult:
        """Process a unit, with retries."""
        return attempt(self.job, self.process, unit)


_worker: list[Worker] = []
"""The worker of this process, once the pool has started it."""


def _start_worker(job: Job) -> None:
    _worker.append(Worker(job))


def _attempt_in_worker(unit: WorkUnit) -> UnitResult:
    return _worker[0].attempt(unit)


def _in_processes(job: Job, units: Sequence[WorkUnit], workers: WorkerOptions) -> Iterator[UnitResult]:
    """Use a pool; a process that dies (a decoder's crash, no memory) is replaced and its units are retried."""
    left = {unit.name: unit for unit in units}
    context = multiprocessing.get_context("spawn")
    deaths = 0
    while left:
        before = len(left)
        try:
            with ProcessPoolExecutor(workers.processes, context, _start_worker, (job,)) as pool:
                for result in _as_completed(pool, list(left.values()), 2 * workers.processes):
                    del left[result.unit]
                    yield result
        except BrokenProcessPool as error:
            deaths = deaths + 1 if len(left) == before else 0
            if deaths > MAX_ATTEMPTS:
                raise RuntimeError(
                    "the workers die as they start; run with --workers 1 to see why"
                ) from error
            logger.warning("a worker died; %d units are left and will be retried", len(left))


def _as_completed(pool: ProcessPoolExecutor, units: list[WorkUnit], ahead: int) -> Iterator[UnitResult]:
    """Yield results with at most `ahead` units submitted at a time: a million would fill the memory."""
    waiting: set[Future[UnitResult]] = set()
    queue = iter(units)
    while True:
        for unit in queue:
            waiting.add(pool.submit(_attempt_in_worker, unit))
            if len(waiting) >= ahead:
                break
        if not waiting:
            return
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


class RayWorker(Worker):
    """A Ray actor that takes batches of one unit, as JSON."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Process the units of a batch, and return their names and errors."""
        results = [self.attempt(WorkUnit.from_json(str(text))) for text in batch["unit"]]
        return {"unit": [result.unit for result in results], "error": [result.error for result in results]}


def _on_ray(job: Job, units: Sequence[WorkUnit], workers: WorkerOptions) -> Iterator[UnitResult]:
    """Use Ray Data with a pool of actors; a unit that Ray repeats is yielded once."""
    with _connect(workers) as ray:
        rows = ray.data.from_items(
            [{"unit": unit.to_json()} for unit in units], override_num_blocks=len(units)
        )
        done = rows.map_batches(
            RayWorker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers.processes),
            num_cpus=1,
            num_gpus=workers.gpus or None,
        )
        seen = set()
        for row in done.iter_rows():
            if row["unit"] not in seen:
                seen.add(row["unit"])
                yield UnitResult(row["unit"], row["error"])


@contextmanager
def _connect(workers: WorkerOptions) -> Iterator[Any]:
    """Yield Ray. An instance that was started here gets a CPU for each worker, and is shut down at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("--ray needs Ray: pip install 'ray[data]'; --workers works without it") from error
    ours = not ray.is_initialized()
    if ours:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
        if not workers.ray:
            settings |= {"num_cpus": workers.processes, "include_dashboard": False, "address": "local"}
        else:
            settings["address"] = workers.ray
        try:
            ray.init(**settings)
        except ConnectionError as error:
            raise ValueError(f"no Ray cluster was found at {workers.ray!r} ({error})") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
