"""A user's videos become training sets: `python -m microcinema_core.data.prepare CLIPS OUT --checkpoint FILE`.

Scan, decode, cut, score; then choose by `--keep` and encode. Each step keeps what it did: the same command goes on
where it stopped, and other thresholds, videos or weights cost only what they change. docs/training_data.md explains it.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .paths import home_folder, tokenizer_folder
from .videos.jobs import EncodeJob, ScoreJob
from .videos.plan import Geometry, Unit, arrange, parse_sizes, split_bound
from .videos.report import REPORT, Line, read_lines, write_lines
from .videos.run import Result, Workers, run
from .videos.score import Named, Scoring, folder_digest
from .videos.sets import write_sets
from .videos.sources import Video, scan
from .videos.stable_diffusion import Encoders, load_networks
from .videos.table import Keep, Limits, draw_histograms, limits_of, parse_keep, read_columns

logger = logging.getLogger(__name__)

BYTES_PER_PIXEL = 2 * 2 * 4 / 64
"""Of latents: mean and std in float16, four channels, a 64th of the pixels."""

CONTEXT_BYTES = 2 * 77 * 1024
"""Of a caption, at most (SD 2.x)."""


@dataclass(frozen=True)
class Options:
    """All that the command was told; see its help."""

    clips: Path
    out: Path
    checkpoint: Path | None
    tokenizer: Path | None
    geometry: Geometry
    scoring: Scoring
    keep: list[Keep]
    workers: Workers
    table: Path | None = None
    missing_caption: str = "skip"
    captions: int = 1
    test: float = 0.02
    unit: int = 64
    dtype: str = "fp32"


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


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(
        prog="python -m microcinema_core.data.prepare", description=(__doc__ or "").split("\n\n")[1]
    )
    add = command.add_argument
    add("clips", type=Path, help="folder of videos, table (.csv, .jsonl, MSR-VTT's .json), or tar shards")
    add("out", type=Path, help="folder for scores, report and sets")
    add("--checkpoint", type=Path, help="Stable Diffusion 1.x or 2.x: safetensors file or diffusers folder")
    add("--only-scores", action="store_true", help="stop before encoding, to choose thresholds first")
    add("--keep", default="", help='clips to keep, as in "motion:0.1q..0.9q,clip:0.25.." (q: a quantile)')
    add("--table", type=Path, help="a table that lies elsewhere than in CLIPS")
    add("--missing-caption", choices=("skip", "empty"), default="skip", help="videos without a caption")
    add("--captions", type=int, default=1, help="contexts stored a clip, of videos with several captions")
    add("--sizes", default="320x320", help="WIDTHxHEIGHT of each bucket: 320x320,448x256")
    add("--frames", type=int, default=9, help="frames of a base clip")
    add("--fps", type=float, default=2.0, help="rate of base clips")
    add("--window", type=int, default=5, help="frames of an interpolation window")
    add("--rounds", type=int, default=2, help="rounds of fourfold interpolation to cut windows for; 0: none")
    add("--most", type=int, default=4, help="most clips, and most windows of each rate, of one video")
    add(
        "--enlarge",
        type=float,
        default=2.0,
        help="how much pictures may grow to fit; smaller ones are skipped",
    )
    add("--test", type=float, default=0.02, help="part of the sources that is kept for testing; 0: none")
    add("--clip-model", type=Path, help="local folder of a transformers CLIPModel, for the score `clip`")
    add("--score", action="append", default=[], metavar="NAME=MODULE:FUNCTION", help="a score of your own")
    add("--tokenizer", type=Path, help="folder of CLIP's vocab.json; default: the host's")
    add("--device", default="cpu", help="where models run: cpu, cuda ...")
    add(
        "--dtype",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="of the VAE's and text encoder's work",
    )
    add("--workers", type=int, default=1, help="processes, each with one thread")
    add(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="work on Ray: this machine, or a cluster's address",
    )
    add("--gpus", type=float, default=0.0, help="GPUs of each worker, on Ray")
    add("--unit", type=int, default=64, help="videos that are worked on, kept and tried again together")
    return command


def options_of(given: argparse.Namespace) -> Options:
    """Raises ValueError for what cannot be."""
    if given.checkpoint is None and not given.only_scores:
        raise ValueError(
            "name the Stable Diffusion file with --checkpoint, or stop before encoding with --only-scores"
        )
    for name, least in (("captions", 1), ("workers", 1), ("unit", 1)):
        if getattr(given, name) < least:
            raise ValueError(f"--{name} is {getattr(given, name)}; at least {least} is needed")
    if not 0 <= given.test < 1:
        raise ValueError(f"--test is {given.test}; expected a part from 0 to below 1")
    geometry = Geometry(
        parse_sizes(given.sizes),
        given.frames,
        given.fps,
        given.window,
        given.rounds,
        given.most,
        given.enlarge,
    )
    tokenizer = given.tokenizer
    if tokenizer is not None and not (tokenizer / "vocab.json").is_file():
        raise ValueError(
            f"--tokenizer {tokenizer} holds no vocab.json; expected CLIP's vocab.json and merges.txt"
        )
    return Options(
        given.clips,
        given.out,
        None if given.only_scores else given.checkpoint,
        tokenizer,
        geometry,
        _scoring(given),
        parse_keep(given.keep),
        Workers(given.workers, given.ray, given.gpus),
        given.table,
        given.missing_caption,
        given.captions,
        given.test,
        given.unit,
        given.dtype,
    )


def _scoring(given: argparse.Namespace) -> Scoring:
    hooks = tuple(Named.parse(text) for text in given.score)
    for hook in hooks:
        hook.load()  # a wrong name is said before the work, not in a worker
    folder = given.clip_model
    if folder is None:
        logger.info("no --clip-model: clips get no score `clip`, captions are not checked against pictures")
        return Scoring(hooks=hooks, device=given.device)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"--clip-model {folder} has no config.json; expected a folder of transformers' CLIPModel"
        )
    tokenizer = given.tokenizer
    if tokenizer is None and not (folder / "vocab.json").is_file():
        tokenizer = tokenizer_folder(home_folder())
    return Scoring(folder, folder_digest(folder), hooks, tokenizer, given.device)


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
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
