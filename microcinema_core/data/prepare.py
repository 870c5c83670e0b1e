"""Make training sets from videos: `python -m microcinema_core.data.prepare CLIPS OUT --checkpoint FILE`.

Scan, decode, cut and score the videos; then choose clips with `--keep` and encode them. Each step keeps its results:
repeat the command to continue; other thresholds, videos or weights cost only what they change.
docs/training_data.md explains it.
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

from ..config import CONTEXT_LENGTH
from ..guarded import guarded
from ..messages import one_line
from .folder_lock import locked_folder, remove_leftovers
from .options import PrepareOptions, build_parser, parse_options
from .tokens import choose_tokenizer
from .videos.attempt import UnitResult
from .videos.encode import EncodeJob, Encoders
from .videos.plan import WorkUnit, parse_sizes, split_bound, update_units
from .videos.report import REPORT, ReportEntry, read_report, write_report
from .videos.run import run
from .videos.score_job import ScoreJob
from .videos.score_table import ScoreLimits, ScoreRow, draw_histograms, read_columns, resolve_limits
from .videos.sets import write_sets
from .videos.sources import Video, scan
from .videos.stable_diffusion import load_encoder_networks
from .videos.vision import PictureEncoder

logger = logging.getLogger(__name__)

BYTES_PER_PIXEL = 2 * 2 * 4 / 64
"""Bytes of latents per pixel: mean and std in float16, 4 channels, 1/64 of the pixels."""

CONTEXT_BYTES = 2 * CONTEXT_LENGTH * 1024
"""Largest size in bytes of a caption's context (SD 2.x)."""


def prepare(options: PrepareOptions) -> dict[str, Any]:
    """Run the whole command, and return the summary that it prints.

    Raises:
        ValueError: an input is not what was expected, or another process prepares into the same folder; the message
            says what to do.
        OSError: the disk is full or read-only; finished work stays.
    """
    videos, entries = scan(options.clips, table=options.table, missing_caption=options.missing_caption)
    with locked_folder(options.out, "wait until it has ended, or give another folder"):
        _remove_leftovers(options.out)
        return _prepare(options, videos, entries)


def _remove_leftovers(out: Path) -> None:
    """Remove what killed runs and earlier versions left unfinished."""
    remove_leftovers(out, out / "encoded", out / "histograms", *out.glob("scores/*"), *out.glob("*/*x*"))
    for path in out.glob("attempts/" + "[0-9a-f]" * 16):
        path.unlink(missing_ok=True)  # counts that earlier versions kept


def _prepare(options: PrepareOptions, videos: Sequence[Video], entries: list[ReportEntry]) -> dict[str, Any]:
    """Score and encode the videos, with the output folder locked; `entries` are the scan's."""
    units = update_units(options.out, videos, options.unit)
    logger.info("%d videos in %d units, %d files left out", len(videos), len(units), len(entries))
    job = ScoreJob(options.out, options.geometry, options.scoring)
    failed = _failures(run(job, units, options.workers), "scored")
    scored = [unit for unit in units if job.done(unit)]
    entries += [entry for unit in scored for entry in read_report(job.report(unit))]
    write_report(options.out / REPORT, [*entries, *failed])
    columns = read_columns([job.path(unit) for unit in scored], options.scoring.names)
    limits = resolve_limits(columns, options.keep)
    summary = {
        "videos": len(videos),
        "skipped": len({entry.file for entry in entries if entry.skipped}),
        "clips": len(columns["role"]),
        "scores": options.scoring.names,
        "histograms": [str(path) for path in _histograms(options.out, columns, limits)],
        "report": str(options.out / REPORT),
    }
    if options.checkpoint is not None:
        sets, more = _encode(options, options.checkpoint, job, scored, videos, limits)
        write_report(options.out / REPORT, [*entries, *failed, *more])
        failed += [entry for entry in more if entry.skipped]
        summary["sets"] = sets
    return summary | {"failed_units": len(failed)}


def _failures(results: Sequence[UnitResult], what: str) -> list[ReportEntry]:
    return [
        ReportEntry(f"unit {result.unit}", f"it could not be {what}: {result.error}")
        for result in results
        if result.error
    ]


def _histograms(out: Path, columns: dict[str, Any], limits: ScoreLimits) -> list[Path]:
    try:
        return draw_histograms(out / "histograms", columns, limits)
    except ValueError as error:
        logger.warning("no histograms: %s", one_line(error))
        return []


def _encode(
    options: PrepareOptions,
    checkpoint: Path,
    scores: ScoreJob,
    units: Sequence[WorkUnit],
    videos: Sequence[Video],
    limits: ScoreLimits,
) -> tuple[dict[str, int], list[ReportEntry]]:
    """Encode the clips that are kept; return the number of clips by set, and entries for the report."""
    tokenizer = choose_tokenizer(options.tokenizer)
    networks = load_encoder_networks(checkpoint)
    digest, empty = networks.digest(), {"text": Encoders(networks, tokenizer).contexts([""])}
    seen = ""
    if options.clip_vision is not None:
        vision = PictureEncoder(options.clip_vision)
        seen, empty["grey"] = vision.digest(), vision.grey()
        del vision
    del networks  # the workers load their own
    job = EncodeJob(
        options.out, scores, limits, checkpoint, digest, tokenizer, options.captions,
        split_bound(videos, options.test), options.scoring.device, options.dtype,
        vision=options.clip_vision, vision_digest=seen,
    )  # fmt: skip
    _check_free_space(job, units, 2 * empty["grey"].numel() if seen else 0)
    failed = _failures(run(job, units, options.workers), "encoded")
    entries = [entry for unit in units for entry in read_report(job.report(unit))]
    return write_sets(job, units, empty), [*failed, *entries]


def _check_free_space(job: EncodeJob, units: Sequence[WorkUnit], features: int) -> None:
    """Raise OSError before encoding where the result cannot fit; `features` are the bytes of a base clip's."""
    pending = [unit for unit in units if not job.done(unit)]
    rows = [row for unit in pending for kept in job.kept_rows(unit).values() for row in kept]
    contexts = len({row["video"] for row in rows}) * job.captions * CONTEXT_BYTES
    seen = features * sum(row["role"] == "base" for row in rows)
    needed = contexts + seen + sum(_latent_bytes(row) for row in rows)
    free = shutil.disk_usage(job.out).free
    logger.info("%d clips to encode, %.2f GB; %.1f GB are free", len(rows), needed / 1e9, free / 1e9)
    if needed > free:
        why = f"the latents need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, why, str(job.out))


def _latent_bytes(row: ScoreRow) -> int:
    [(width, height)] = parse_sizes(row["bucket"])
    return int(len(row["pts"]) * width * height * BYTES_PER_PIXEL)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit code 0 done, 1 incomplete, 2 wrong input, 130 interrupted."""
    given = build_parser((__doc__ or "").split("\n\n")[1]).parse_args(arguments)
    return guarded(lambda: _prepare_and_report(parse_options(given)), extra="train")


def _prepare_and_report(options: PrepareOptions) -> int:
    """Print the summary of a run; return 1 where units failed, else 0."""
    summary = prepare(options)
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    if summary["failed_units"]:
        sys.stderr.write(
            f"{summary['failed_units']} units failed (see the report); run the same command again\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
