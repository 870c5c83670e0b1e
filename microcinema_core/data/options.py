"""The command line of `python -m microcinema_core.data.prepare`."""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from ..messages import one_line, reason
from ..optional_deps import require
from .tokens import choose_tokenizer
from .videos.plan import Geometry, parse_sizes
from .videos.run import WorkerOptions
from .videos.score import CustomScore, ScoreSettings, check_clip_model, clip_digest
from .videos.score_table import KeepRule, parse_keep
from .videos.vision import vision_config

logger = logging.getLogger(__name__)

TAKEN_NAMES = ("motion", "role", "rate")
"""Names of scores and columns that a score of one's own cannot have."""


@dataclass(frozen=True)
class PrepareOptions:
    """The checked options of the command; its `--help` describes them."""

    clips: Path
    out: Path
    checkpoint: Path | None
    tokenizer: Path | None
    geometry: Geometry
    scoring: ScoreSettings
    keep: list[KeepRule]
    workers: WorkerOptions
    table: Path | None = None
    missing_caption: str = "skip"
    clip_vision: Path | None = None
    captions: int = 1
    test: float = 0.02
    unit: int = 64
    dtype: str = "fp32"


def build_parser(description: str) -> argparse.ArgumentParser:
    """Describe the command line."""
    command = argparse.ArgumentParser(prog="python -m microcinema_core.data.prepare", description=description)
    add = command.add_argument
    add("clips", type=Path, help="folder of videos, table (.csv, .jsonl, MSR-VTT's .json), or tar shards")
    add("out", type=Path, help="folder for scores, report and sets")
    add("--checkpoint", type=Path, help="Stable Diffusion 1.x or 2.x: safetensors file or diffusers folder")
    add("--only-scores", action="store_true", help="stop before encoding, to choose thresholds first")
    add(
        "--keep",
        default="",
        help='ranges of scores to keep, such as "motion:0.1q..0.9q,clip:0.25.." (q: a quantile), or webvid',
    )
    add("--table", type=Path, help="a table that is not in CLIPS; its file names are relative to CLIPS")
    add("--missing-caption", choices=("skip", "empty"), default="skip", help="videos without a caption")
    add(
        "--clip-vision",
        type=Path,
        help="file of CLIP vision ViT-H, to train DynamiCrafter's own AppearNet: features of base clips' pictures",
    )
    add("--captions", type=int, default=1, help="captions stored for each clip, of videos with several")
    add("--sizes", default="320x320", help="WIDTHxHEIGHT of each bucket: 320x320,448x256")
    add("--frames", type=int, default=9, help="frames of a base clip")
    add("--fps", type=float, default=2.0, help="frame rate of base clips")
    add("--window", type=int, default=5, help="frames of an interpolation window")
    add("--rounds", type=int, default=2, help="rounds of fourfold interpolation to cut windows for; 0: none")
    add("--most", type=int, default=4, help="most base clips, and most windows of each rate, from one video")
    add(
        "--enlarge",
        type=float,
        default=2.0,
        help="largest factor by which frames may be enlarged; smaller videos are skipped",
    )
    add("--test", type=float, default=0.02, help="fraction of the sources that is held out; 0: none")
    add("--clip-model", type=Path, help="local folder of a transformers CLIPModel, for the score `clip`")
    add("--score", action="append", default=[], metavar="NAME=MODULE:FUNCTION", help="a score of your own")
    add(
        "--tokenizer",
        type=Path,
        help="folder of CLIP's tokenizer; default: ComfyUI's, for --clip-model its own",
    )
    add("--device", default="cpu", help="device of the models: cpu, cuda ...")
    add(
        "--dtype",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="precision of the VAE and the text encoder",
    )
    add("--workers", type=int, default=1, help="processes, each with one thread")
    add(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="use Ray: on this machine, or the cluster at ADDRESS",
    )
    add("--gpus", type=float, default=0.0, help="GPUs of each worker, with --ray")
    add("--unit", type=int, default=64, help="videos that are processed, stored and retried together")
    return command


def parse_options(given: argparse.Namespace) -> PrepareOptions:
    """Check the parsed command line.

    Raises:
        ValueError: an option has an impossible value; the message says what is expected.
    """
    if given.checkpoint is None and not given.only_scores:
        raise ValueError(
            "name the Stable Diffusion file with --checkpoint, or stop before encoding with --only-scores"
        )
    for name, least in (("captions", 1), ("workers", 1), ("unit", 1)):
        if getattr(given, name) < least:
            raise ValueError(f"--{name} is {getattr(given, name)}; at least {least} is needed")
    if not 0 <= given.test < 1:
        raise ValueError(f"--test is {given.test}; expected a fraction from 0 to below 1")
    if not 0 <= given.gpus < math.inf:
        raise ValueError(f"--gpus is {given.gpus}; expected a number from 0")
    if given.out.exists() and not given.out.is_dir():
        raise ValueError(f"{one_line(given.out)} is a file; expected a folder for scores, report and sets")
    check_device(given.device, here=given.ray is None)
    encodes = given.checkpoint is not None and not given.only_scores
    models = ["diffusers", "transformers"] if encodes else []
    require("skimage", *models, *([] if given.clip_model is None else ["transformers"]))
    if encodes or given.tokenizer is not None:
        choose_tokenizer(given.tokenizer)
    if given.clip_vision is not None:
        vision_config(given.clip_vision)
    return PrepareOptions(
        clips=given.clips,
        out=given.out,
        checkpoint=None if given.only_scores else given.checkpoint,
        tokenizer=given.tokenizer,
        geometry=_geometry(given),
        scoring=_score_settings(given),
        keep=parse_keep(given.keep),
        workers=WorkerOptions(given.workers, given.ray, given.gpus),
        table=given.table,
        missing_caption=given.missing_caption,
        clip_vision=None if given.only_scores else given.clip_vision,
        captions=given.captions,
        test=given.test,
        unit=given.unit,
        dtype=given.dtype,
    )


def check_device(name: str, *, here: bool) -> None:
    """Refuse a device that torch does not know, or that this machine does not have where `here` is true.

    Raises:
        ValueError: the message names it.
    """
    try:
        device = torch.device(name)
        if here:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"--device {one_line(name)} cannot be used here ({reason(error)}); expected cpu, cuda, cuda:1, mps ..."
        ) from error


def _geometry(given: argparse.Namespace) -> Geometry:
    return Geometry(
        sizes=parse_sizes(given.sizes),
        frames=given.frames,
        fps=given.fps,
        window=given.window,
        rounds=given.rounds,
        most=given.most,
        enlarge=given.enlarge,
    )


def _score_settings(given: argparse.Namespace) -> ScoreSettings:
    custom = tuple(CustomScore.parse(text) for text in given.score)
    clip = ["clip"] if given.clip_model is not None else []
    names = [*TAKEN_NAMES, *clip, *(score.name for score in custom)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--score {twice[0]}: there is a score or column of this name; choose another name")
    for score in custom:
        score.load()  # so that a wrong name fails here, not in a worker
    folder = given.clip_model
    if folder is None:
        logger.info("no --clip-model: there is no score `clip`, captions are not compared to frames")
        return ScoreSettings(custom=custom, device=given.device)
    check_clip_model(folder)
    tokenizer = choose_tokenizer(given.tokenizer, folder)
    return ScoreSettings(folder, clip_digest(folder, tokenizer), custom, tokenizer, given.device)
