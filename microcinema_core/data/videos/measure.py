"""How fast clips are scored: `python -m microcinema_core.data.videos.measure CLIPS [--workers 1 2] [--ray]`.

Each number of workers scores the same videos from nothing, into a folder that is thrown away; the time to start
(processes, Ray, models) is told apart from the work by timing from the first unit that is done to the last.
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

from .jobs import ScoreJob
from .plan import Geometry, Unit, parse_sizes
from .run import Workers, work_off
from .score import Scoring, folder_digest
from .sources import scan
from .table import read_rows


def measure(job: ScoreJob, units: Sequence[Unit], workers: Workers) -> dict[str, Any]:
    """Clips a second, in all and a worker; both with and without the time to start."""
    started, ends, clips = time.monotonic(), [], []
    names = {unit.name: unit for unit in units}
    for result in work_off(job, units, workers):
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m microcinema_core.data.videos.measure", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ray", nargs="?", const="", metavar="ADDRESS")
    parser.add_argument("--sizes", default="320x320")
    parser.add_argument("--clip-model", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--unit", type=int, default=1, help="videos a unit; small ones for few videos")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    model = given.clip_model
    scoring = Scoring(model, folder_digest(model) if model else "", (), given.tokenizer)
    videos, _ = scan(given.clips, missing_caption="empty")
    parts = [videos[start : start + given.unit] for start in range(0, len(videos), given.unit)]
    units = [Unit(tuple(part)) for part in parts]
    for count in given.workers:
        with tempfile.TemporaryDirectory() as out:
            job = ScoreJob(Path(out), Geometry(parse_sizes(given.sizes)), scoring)
            sys.stdout.write(json.dumps(measure(job, units, Workers(count, given.ray))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
