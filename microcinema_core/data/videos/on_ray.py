"""The same jobs on Ray Data: one machine or a cluster, which must share the folders of videos and results.

Ray restarts workers that die and gives their units to others; what was done already is on disk and is not repeated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .jobs import Job
from .plan import Unit
from .run import Result, Workers, attempt


class Worker:
    """One of Ray's actors: models are loaded once, then units come."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(1)
        self.job, self.work = job, job.start()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        units = [Unit.from_json(str(text)) for text in batch["unit"]]
        results = [attempt(self.job, self.work, unit) for unit in units]
        return {"unit": [result.unit for result in results], "error": [result.error for result in results]}


def work_off(job: Job, units: Sequence[Unit], workers: Workers) -> Iterator[Result]:
    """Results as they come.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    if not units:
        return
    with _connected(workers) as ray:
        rows = ray.data.from_items(
            [{"unit": unit.to_json()} for unit in units], override_num_blocks=len(units)
        )
        done = rows.map_batches(
            Worker,
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
                yield Result(row["unit"], row["error"])


@contextmanager
def _connected(workers: Workers) -> Iterator[Any]:
    """Ray, left as it was found: one that was started here has as many CPUs as these workers, and ends with them."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("--ray needs Ray: pip install 'ray[data]'; --workers does without") from error
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
            raise ValueError(f"no Ray cluster answers at {workers.ray!r} ({error})") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
