"""A user's videos become training sets: `python -m microcinema_core.data.prepare CLIPS OUT --checkpoint FILE`.

Scan, decode, cut, score; then choose by `--keep` and encode. Each step keeps what it did: the same command goes on
where it stopped, and other thresholds, videos or weights cost only what they change. docs/training_data.md explains it.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.paths import home_folder, tokenizer_folder
from .options import Options, options_of, parser
from .videos.encode_job import EncodeJob
from .videos.encoders import Encoders
from .videos.jobs import ScoreJob
from .videos.plan import Unit, arrange, parse_sizes, split_bound
from .videos.report import REPORT, Line, read_lines, write_lines
from .videos.run import Result, run
from .videos.sets import write_sets
from .videos.sources import Video, scan
from .videos.stable_diffusion import load_networks
from .videos.table import Limits, draw_histograms, limits_of, read_columns

logger = logging.getLogger(__name__)

BYTES_PER_PIXEL = 2 * 2 * 4 / 64
"""Of latents: mean and std in float16, four channels, a 64th of the pixels."""

CONTEXT_BYTES = 2 * 77 * 1024
"""Of a caption, at most (SD 2.x)."""


def prepare(options: Options) -> dict[str, Any]:
    """Everything that the command does; returns what it prints.

    Raises:
        ValueError: something given is not what was expected; one sentence says what to do.
        OSError: the disk is full or read-only; what is done stays.
    """
    videos, lines = scan(options.clips, table=options.table, missing_caption=options.missing_caption)
    options.out.mkdir(parents=True, exist_ok=True)
    units = arrange(options.out, videos, options.unit)
    logger.info("%d videos in %d units, %d files left out", len(videos), len(units), len(lines))
    job = ScoreJob(options.out, options.geometry, options.scoring)
    failed = _failures(run(job, units, options.workers), "scored")
    scored = [unit for unit in units if job.done(unit)]
    lines += [line for unit in scored for line in read_lines(job.report(unit))]
    write_lines(options.out / REPORT, [*lines, *failed])
    columns = read_columns([job.path(unit) for unit in scored], options.scoring.columns)
    limits = limits_of(columns, options.keep)
    summary = {
        "videos": len(videos),
        "skipped": len({line.file for line in lines if line.skipped}),
        "clips": len(columns["role"]),
        "scores": options.scoring.columns,
        "histograms": [str(path) for path in _histograms(options.out, columns, limits)],
        "report": str(options.out / REPORT),
    }
    if options.checkpoint is not None:
        sets, more = _encode(options, options.checkpoint, job, scored, videos, limits)
        write_lines(options.out / REPORT, [*lines, *failed, *more])
        failed += [line for line in more if line.skipped]
        summary["sets"] = sets
    return summary | {"failed_units": len(failed)}


def _failures(results: Sequence[Result], what: str) -> list[Line]:
    return [
        Line(f"unit {result.unit}", f"it could not be {what}: {result.error}")
        for result in results
        if result.error
    ]


def _histograms(out: Path, columns: dict[str, Any], limits: Limits) -> list[Path]:
    try:
        return draw_histograms(out / "histograms", columns, limits)
    except ValueError as error:
        logger.warning("no histograms: %s", error)
        return []


def _encode(
    options: Options,
    checkpoint: Path,
    scores: ScoreJob,
    units: Sequence[Unit],
    videos: Sequence[Video],
    limits: Limits,
) -> tuple[dict[str, int], list[Line]]:
    """Clips by set, and lines for the report."""
    tokenizer = options.tokenizer or tokenizer_folder(home_folder())
    networks = load_networks(checkpoint)
    digest, empty = networks.digest(), Encoders(networks, tokenizer).contexts([""])
    del networks  # the workers load their own
    job = EncodeJob(
        options.out, scores, limits, checkpoint, digest, tokenizer, options.captions,
        split_bound(videos, options.test), options.scoring.device, options.dtype,
    )  # fmt: skip
    _need_room(job, units)
    failed = _failures(run(job, units, options.workers), "encoded")
    lines = [line for unit in units for line in read_lines(job.report(unit))]
    return write_sets(job, units, empty), [*failed, *lines]


def _need_room(job: EncodeJob, units: Sequence[Unit]) -> None:
    """OSError before the work, where its result cannot fit."""
    rows = [row for unit in units if not job.done(unit) for some in job.wanted(unit).values() for row in some]
    contexts = len({row["video"] for row in rows}) * job.captions * CONTEXT_BYTES
    needed = contexts + sum(_bytes(row) for row in rows)
    free = shutil.disk_usage(job.out).free
    logger.info("%d clips to encode, %.2f GB; %.1f GB are free", len(rows), needed / 1e9, free / 1e9)
    if needed > free:
        why = f"the latents need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, why, str(job.out))


def _bytes(row: dict[str, Any]) -> int:
    """Of a clip's latents."""
    [(width, height)] = parse_sizes(row["bucket"])
    return int(len(row["pts"]) * width * height * BYTES_PER_PIXEL)


def main(arguments: list[str] | None = None) -> int:
    given = parser((__doc__ or "").split("\n\n")[1]).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        summary = prepare(options_of(given))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some room" if full else "mend that"
        sys.stderr.write(f"{error}; what is done stays: {advice} and run the same command again\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is done stays: the same command goes on from here\n")
        return 130
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    if summary["failed_units"]:
        sys.stderr.write(
            f"{summary['failed_units']} units failed (see the report); run the same command again\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
