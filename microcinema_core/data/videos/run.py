"""Run a job over many units: in processes of this machine, or on Ray.

The work is never done in this process, so that a library that crashes takes one unit along and not the run. Ray runs on
one machine or on a cluster whose machines share the folders of videos and results. Workers that die are replaced, and
their units given to others; finished units are on disk and are not repeated.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from ...messages import reason
from .attempt import CRASHED, MAX_ATTEMPTS, Job, UnitResult, attempt
from .plan import WorkUnit

logger = logging.getLogger(__name__)
T = TypeVar("T")

GRACE = 5.0
"""Seconds that a worker gets to end by itself before it is killed."""


@dataclass(frozen=True)
class WorkerOptions:
    """How many workers there are, and where.

    Attributes:
        processes: number of workers.
        ray: address of a Ray cluster; "" for a Ray of this machine alone, None for no Ray.
        gpus: GPUs of each worker on Ray.
    """

    processes: int = 1
    ray: str | None = None
    gpus: float = 0.0


def run(job: Job, units: Sequence[WorkUnit], workers: WorkerOptions) -> list[UnitResult]:
    """Process all units that are not done yet; those that fail are results with an error.

    Raises:
        OSError: the disk is full or read-only, or the workers end as they start; finished units stay.
        ValueError: the job cannot start, Ray is not installed, or there is no cluster at its address.
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
    return _in_processes(job, units, workers) if workers.ray is None else _on_ray(job, units, workers)


class Worker:
    """A job in a process of its own, which loads its models once."""

    def __init__(self, job: Job, *, alone: bool = False) -> None:
        if not alone:
            import torch

            torch.set_num_threads(1)
        self.job, self.process = job, job.start()

    def attempt(self, unit: WorkUnit) -> UnitResult:
        """Process a unit, with retries."""
        return attempt(self.job, self.process, unit)


@dataclass(frozen=True)
class _Failure:
    """An error of a worker that ends the run: its sentence, and the system's number for an error of files."""

    text: str
    number: int | None = None

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        if isinstance(error, OSError):
            return cls(reason(error), error.errno or 0)
        return cls(
            reason(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {reason(error)}"
        )

    def error(self) -> Exception:
        return ValueError(self.text) if self.number is None else OSError(self.number, self.text)


_READY = "ready"


def serve(pipe: connection.Connection, job: Job, alone: bool, level: int) -> None:
    """Work on the units that come through a pipe until it is closed or the process at its other end is gone.

    Args:
        pipe: gets units, and gives `_READY`, results, and a `_Failure` that ends the worker.
        job: what is done to each unit.
        alone: whether there is no other worker, so that this one may use several threads.
        level: level of log messages.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its workers
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=level, format="%(message)s")
    with contextlib.suppress(EOFError, OSError):  # the pipe was closed
        worker = _or_failure(lambda: Worker(job, alone=alone))
        if isinstance(worker, _Failure):
            pipe.send(worker)
            return
        pipe.send(_READY)
        while True:
            unit = pipe.recv()
            pipe.send(_or_failure(lambda unit=unit: worker.attempt(unit)))  # type: ignore[misc]


def _or_failure(work: Callable[[], T]) -> T | _Failure:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  (the parent raises it)
        return _Failure.of(error)


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process as its unfinished files are removed; a signal handler."""
    sys.exit(128 + number)


def _end_with_parent() -> None:
    """Wait for the parent's end, however it ends, and end too: the next run must be alone in its folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


class _WorkerProcess:
    """A worker in a process of this machine.

    Attributes:
        pipe: the pipe to it.
        unit: the unit that it works on, if any.
        ready: whether it has started.
    """

    def __init__(self, job: Job, *, alone: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        self.process = context.Process(target=serve, args=(theirs, job, alone, level))
        self.process.start()
        theirs.close()
        self.unit: WorkUnit | None = None
        self.ready = False

    def give(self, unit: WorkUnit) -> None:
        """Send it a unit; if it has just died, its pipe says so later."""
        self.unit = unit
        with contextlib.suppress(OSError):
            self.pipe.send(unit)

    def receive(self) -> UnitResult | _Failure | str | None:
        """Return its next message; None if it died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> int | None:
        """End it, within some seconds, and return its exit code."""
        self.pipe.close()
        if self.unit is not None:
            self.process.terminate()
        for kill in (self.process.terminate, self.process.kill):
            self.process.join(GRACE)
            if self.process.exitcode is not None:
                break
            kill()
        self.process.join()
        return self.process.exitcode


def _in_processes(job: Job, units: Sequence[WorkUnit], workers: WorkerOptions) -> Iterator[UnitResult]:
    """Use processes of this machine; one that dies (a decoder's crash, no memory) is replaced.

    The unit that it held is tried again, until it has ended as many as MAX_ATTEMPTS: this process saw them end.
    """
    left, deaths, stillborn = deque(units), Counter[str](), 0
    count = min(workers.processes, len(units))
    crew: list[_WorkerProcess] = []
    try:
        while left or any(worker.unit for worker in crew):
            while len(crew) < count and len(left) > sum(worker.unit is None for worker in crew):
                crew.append(_WorkerProcess(job, alone=count == 1))
            for worker in crew:
                if worker.ready and worker.unit is None and left:
                    worker.give(left.popleft())
            for worker in _heard(crew):
                message = worker.receive()
                if isinstance(message, _Failure):
                    raise message.error()
                if isinstance(message, UnitResult):
                    worker.unit = None
                    yield message
                elif message == _READY:
                    worker.ready, stillborn = True, 0
                else:
                    crew.remove(worker)
                    unit, code = worker.unit, worker.end()
                    logger.warning("a worker ended (exit code %s); it is replaced", code)
                    if unit is None:
                        stillborn += not worker.ready
                        _refuse_stillborn(stillborn, code)
                        continue
                    deaths[unit.name] += 1
                    if deaths[unit.name] < MAX_ATTEMPTS:
                        left.append(unit)
                    else:
                        yield UnitResult(unit.name, CRASHED)
    finally:
        for worker in crew:
            worker.end()


def _heard(crew: Sequence[_WorkerProcess]) -> list[_WorkerProcess]:
    """Wait for messages, or the end of workers, and return from which."""
    heard = connection.wait([worker.pipe for worker in crew])
    return [worker for worker in crew if worker.pipe in heard]


def _refuse_stillborn(count: int, code: int | None) -> None:
    """Refuse to go on when workers end before they start.

    Raises:
        OSError: the message says how often, and how.
    """
    if count > MAX_ATTEMPTS:
        raise ChildProcessError(
            f"{count} workers in a row ended as they started, the last with exit code {code} (-9: killed, often for "
            "lack of memory); give --workers a smaller number"
        )


class RayWorker(Worker):
    """A Ray actor that takes batches of one unit, as JSON.

    Args:
        job: what is done to each unit.
        counts: a folder of this run alone, where attempts are counted: Ray itself repeats what ends an actor for ever.
    """

    def __init__(self, job: Job, counts: Path) -> None:
        super().__init__(job)
        self.counts = counts

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Process the units of a batch, and return their names and errors."""
        results = [self._counted(WorkUnit.from_json(str(text))) for text in batch["unit"]]
        return {"unit": [result.unit for result in results], "error": [result.error for result in results]}

    def _counted(self, unit: WorkUnit) -> UnitResult:
        self.counts.mkdir(parents=True, exist_ok=True)
        path = self.counts / unit.name
        with path.open("ab") as file:
            file.write(b".")
            file.flush()
            count = os.fstat(file.fileno()).st_size
        if count > MAX_ATTEMPTS:
            return UnitResult(unit.name, CRASHED)
        result = self.attempt(unit)
        path.unlink(missing_ok=True)
        return result


def _on_ray(job: Job, units: Sequence[WorkUnit], workers: WorkerOptions) -> Iterator[UnitResult]:
    """Use Ray Data with a pool of actors; a unit that Ray repeats is yielded once."""
    counts = job.out.absolute() / "attempts" / secrets.token_hex(8)
    with _connect(workers) as ray, _removed(counts.parent):
        rows = ray.data.from_items(
            [{"unit": unit.to_json()} for unit in units], override_num_blocks=len(units)
        )
        done = rows.map_batches(
            RayWorker,
            fn_constructor_args=(job, counts),
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
def _removed(folder: Path) -> Iterator[None]:
    """Remove a folder before and after this context."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
            raise ValueError(f"no Ray cluster was found at {workers.ray!r} ({reason(error)})") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
