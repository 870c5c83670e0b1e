"""Measure scoring throughput: `python -m microcinema_core.data.videos.measure CLIPS [--workers 1 2] [--ray]`.

For each number of workers the same videos are scored from nothing, into a temporary folder. Throughput is timed from
the first finished unit to the last, so that the start of processes, Ray and models does not count.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...messages import one_line
from ...optional_deps import install_hint, require
from ..tokens import choose_tokenizer
from .plan import Geometry, WorkUnit, parse_sizes
from .run import WorkerOptions, process_units
from .score import ScoreSettings, clip_digest
from .score_job import ScoreJob
from .score_table import read_rows
from .sources import scan


def measure(job: ScoreJob, units: Sequence[WorkUnit], workers: WorkerOptions) -> dict[str, Any]:
    """Score all units, and return clips per second, in all and for each worker, and the time to start."""
    started, ends, clips = time.monotonic(), [], []
    names = {unit.name: unit for unit in units}
    for result in process_units(job, units, workers):
        ends.append(time.monotonic())
        clips.append(len(read_rows(job.path(names[result.unit]))) if not result.error else 0)
    steady = sum(clips[1:]) / (ends[-1] - ends[0]) if len(ends) > 1 and ends[-1] > ends[0] else None
    return {
        "workers": workers.processes,
        "on": "ray" if workers.ray is not None else "processes",
        "clips": sum(clips),
        "seconds": round(ends[-1] - started, 2),
        "seconds_to_first_unit": round(ends[0] - started, 2),
        "clips_per_second": steady and round(steady, 3),
        "clips_per_second_per_worker": steady and round(steady / workers.processes, 3),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print one JSON line for each number of workers; the exit code is 1 after an error, which stderr states."""
    parser = argparse.ArgumentParser(
        prog="python -m microcinema_core.data.videos.measure", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ray", nargs="?", const="", metavar="ADDRESS")
    parser.add_argument("--sizes", default="320x320")
    parser.add_argument("--clip-model", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--unit", type=int, default=1, help="videos in a unit; small for few videos")
    given = parser.parse_args(arguments)
    if min(given.workers) < 1 or given.unit < 1:
        parser.error("--workers and --unit must be at least 1")
    try:
        _measure_all(given)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{install_hint(error, 'train')}\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{one_line(error)}\n")
        return 1
    return 0


def _measure_all(given: argparse.Namespace) -> None:
    """Measure each number of workers, and print a JSON line for it.

    Raises:
        ModuleNotFoundError: a library is not installed.
        ValueError: an input is not what was expected.
        OSError: the temporary folder cannot be written to, or the workers end as they start.
    """
    logging.basicConfig(level=logging.WARNING)
    model = given.clip_model
    require("skimage", *(["transformers"] if model else []))
    tokenizer = choose_tokenizer(given.tokenizer, model) if model else None
    scoring = ScoreSettings(model, clip_digest(model, tokenizer) if tokenizer else "", (), tokenizer)
    videos, entries = scan(given.clips, missing_caption="empty")
    if not videos:
        raise ValueError(f"{one_line(given.clips)} holds no video that can be used: {entries[0].reason}")
    parts = [videos[start : start + given.unit] for start in range(0, len(videos), given.unit)]
    units = [WorkUnit(tuple(part)) for part in parts]
    for count in given.workers:
        with tempfile.TemporaryDirectory() as out:
            job = ScoreJob(Path(out), Geometry(parse_sizes(given.sizes)), scoring)
            sys.stdout.write(json.dumps(measure(job, units, WorkerOptions(count, given.ray))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
