"""What `python -m microcinema_core.data.prepare` can be told."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

from ..files.paths import home_folder, tokenizer_folder
from .videos.plan import Geometry, parse_sizes
from .videos.run import Workers
from .videos.score import Named, Scoring, folder_digest
from .videos.table import Keep, parse_keep

logger = logging.getLogger(__name__)


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


def parser(description: str) -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m microcinema_core.data.prepare", description=description)
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
