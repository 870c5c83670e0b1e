"""Render and encode a training set: `python -m mini.world.encode NAME --vae FILE [--count N]`.

NAME is `image`, `base` or `tsr`, and may go on after a `-` to tell variants apart; a name that ends in `-validation` or
`-test` holds that split. Existing shards are kept: an interrupted run continues, and a larger `--count` adds shards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from microcinema_core.data.shards import INDEX, shard_length, shard_path, write_json, write_shard
from microcinema_core.data.tokens import CaptionTokenizer
from microcinema_core.files.paths import home_folder, tokenizer_folder

from .clips import FPS, FRAMES, MOVED_SHARE, SET_ROLES, STILL_SHARE, ClipSampler, SetRole
from .emoji import emoji_folder, read_catalogue
from .encoder import encode_shard, encoder_hash, load_encoder

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
DEFAULT_COUNTS: dict[SetRole, int] = {"image": 65536, "base": 16384, "tsr": 16384}
HELD_OUT = ("validation", "test")
HELD_OUT_COUNT = 1024


@dataclass(frozen=True)
class EncodingSettings:
    """Everything that the content of a set depends on, except its length; stored as `settings.json`.

    `subjects` is `subjects_hash` of the split: the splits of the emoji may change.
    """

    role: SetRole
    split: str
    encoder_hash: str
    seed: int = 0
    captions_per_clip: int = 4
    shard_size: int = 512
    moved: float = MOVED_SHARE
    rigid: bool = False
    named: float = 0.0
    subjects: str = ""


@dataclass(frozen=True)
class EncodingJob:
    """The folders and files of a run, its settings, and how it is executed."""

    folder: Path
    emoji: Path
    tokenizer: Path
    vae: Path
    settings: EncodingSettings
    dtype: str = "bf16"
    batch_frames: int = 32
    threads: int = 1


def parse_name(name: str) -> tuple[SetRole, str]:
    """Return role and split of a set's name: `base-validation` -> (`base`, `validation`).

    Raises:
        ValueError: the name does not begin with a role.
    """
    role, *rest = name.split("-")
    if role not in SET_ROLES:
        raise ValueError(
            f"set {name!r} starts with none of {', '.join(SET_ROLES)}; name it base, base-validation, ..."
        )
    return role, rest[-1] if rest and rest[-1] in HELD_OUT else "train"


def subjects_hash(emoji: Path, split: str) -> str:
    """Return a hash of the ids in a split of the prepared emoji."""
    ids = " ".join(sorted(entry.id for entry in read_catalogue(emoji, split)))
    return hashlib.sha256(ids.encode()).hexdigest()[:16]


_worker: dict[str, Any] = {}


def _start_worker(job: EncodingJob) -> None:
    torch.set_num_threads(job.threads)
    _worker["job"] = job
    _worker["sampler"] = _sampler(job)
    _worker["tokenizer"] = CaptionTokenizer(job.tokenizer)
    _worker["encode"] = load_encoder(job.vae, dtype=job.dtype)


def _work(task: tuple[int, int]) -> tuple[int, int]:
    number, length = task
    job: EncodingJob = _worker["job"]
    first = number * job.settings.shard_size
    tensors, recipes = encode_shard(
        _worker["sampler"],
        _worker["tokenizer"],
        _worker["encode"],
        range(first, first + length),
        batch_frames=job.batch_frames,
    )
    path = shard_path(job.folder, number)
    write_json(path.with_suffix(".json"), recipes)
    write_shard(path, tensors)
    return task


def _sampler(job: EncodingJob) -> ClipSampler:
    settings = job.settings
    return ClipSampler(
        job.emoji,
        settings.split,
        settings.role,
        seed=settings.seed,
        captions=settings.captions_per_clip,
        moved=settings.moved,
        rigid=settings.rigid,
        named=settings.named,
    )


def plan(job: EncodingJob, count: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the lengths of all shards for `count` clips, and (number, length) of those still to be written."""
    size = job.settings.shard_size
    lengths = [min(size, count - first) for first in range(0, count, size)]
    todo = []
    for number, length in enumerate(lengths):
        path = shard_path(job.folder, number)
        if path.exists() and (existing := shard_length(path)) >= length:
            lengths[number] = existing
        else:
            todo.append((number, length))
    return lengths, todo


def check_settings(job: EncodingJob) -> None:
    """Record the settings of a new set; those of an existing set must be the same.

    Raises:
        ValueError: the folder was encoded with other settings.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    path, wanted = job.folder / SETTINGS, asdict(job.settings)
    if not path.exists():
        write_json(path, wanted)
        return
    existing = {"rigid": False, "named": 0.0, **json.loads(path.read_text(encoding="utf-8"))}
    if existing != wanted:
        names = [key for key in wanted if existing.get(key) != wanted[key]]
        raise ValueError(
            f"{job.folder} was encoded with "
            + ", ".join(f"{name} = {existing.get(name)!r} (now {wanted[name]!r})" for name in names)
            + "; delete it, or choose another name"
        )


def encode_set(job: EncodingJob, count: int, *, workers: int = 1) -> Path:
    """Encode `count` clips, keeping complete shards, and write the index; return the set's folder."""
    check_settings(job)
    lengths, todo = plan(job, count)
    logger.info("%s: %d of %d shards to encode", job.folder.name, len(todo), len(lengths))
    started, done = time.monotonic(), 0
    for _, length in _run(job, todo, workers):
        done += length
        seconds = time.monotonic() - started
        frames = done * FRAMES[job.settings.role]
        logger.info("%d clips in %.0f s, %.0f frames/s", done, seconds, frames / seconds)
    write_json(job.folder / INDEX, _index(job, lengths))
    return job.folder


def _run(job: EncodingJob, todo: list[tuple[int, int]], workers: int) -> Iterator[tuple[int, int]]:
    if workers <= 1 or len(todo) <= 1:
        if todo:
            _start_worker(job)
        yield from map(_work, todo)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_start_worker, initargs=(job,)) as pool:
        yield from pool.imap_unordered(_work, todo)


def _index(job: EncodingJob, lengths: list[int]) -> dict[str, Any]:
    settings = job.settings
    with safe_open(shard_path(job.folder, 0), "pt") as file:
        latent = file.get_slice("mean").get_shape()[2:]
    return {
        **asdict(settings),
        "frames": FRAMES[settings.role],
        "fps": list(FPS[settings.role]),
        "latent": latent,
        "count": sum(lengths),
        "shards": lengths,
        "motion_keys": _sampler(job).motion_keys,
        "empty_tokens": CaptionTokenizer(job.tokenizer)([""])[0].tolist(),
    }


def _default_counts() -> str:
    counts = ", ".join(f"{role} {count}" for role, count in DEFAULT_COUNTS.items())
    return f"{counts}, any other split {HELD_OUT_COUNT}"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.encode",
        description="Render clips of the mini world and encode them with a VAE.",
    )
    parser.add_argument("name", help="image, base or tsr; with a final -validation or -test: that split")
    parser.add_argument("--vae", type=Path, required=True, help="a MicroCinema file that holds a VAE")
    parser.add_argument("--count", type=int, help=f"clips; default: {_default_counts()}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clips; default: %(default)s")
    parser.add_argument(
        "--moved", type=float, default=MOVED_SHARE,
        help="share of base and tsr clips that are animations with an added motion; "
        f"{STILL_SHARE:.0%}% more are stills with one; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--rigid", action="store_true",
        help="added motions move a frozen picture, at one speed, and half of all objects are in the middle",
    )  # fmt: skip
    parser.add_argument(
        "--named", type=float, default=0.0,
        help="share of single pictures whose captions name a motion; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--captions", type=int, default=4, help="captions per clip")
    parser.add_argument("--home", help="default: $MICROCINEMA_HOME, else the user's cache directory")
    parser.add_argument("--tokenizer", type=Path, help="folder with CLIP's vocab.json; default: ComfyUI's")
    parser.add_argument("--workers", type=int, default=2, help="processes; default: %(default)s")
    parser.add_argument(
        "--dtype", choices=("bf16", "fp32"), default="bf16", help="of the VAE; default: %(default)s"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    home = home_folder(options.home)
    role, split = parse_name(options.name)
    if not 0 <= options.moved <= 1 - STILL_SHARE:
        parser.error(f"--moved is {options.moved:g}; a share from 0 to {1 - STILL_SHARE:g} was expected")
    if role == "image" and options.moved != MOVED_SHARE:
        parser.error("--moved applies to clips; the single pictures of a set `image` do not move")
    if role == "image" and options.rigid:
        parser.error("--rigid applies to clips; the single pictures of a set `image` do not move")
    if role != "image" and options.named:
        parser.error("--named applies to single pictures; captions of clips name the motion that they show")
    if not 0 <= options.named <= 1:
        parser.error(f"--named is {options.named:g}; a share from 0 to 1 was expected")
    settings = EncodingSettings(
        role,
        split,
        encoder_hash(options.vae),
        seed=options.seed,
        captions_per_clip=options.captions,
        moved=options.moved,
        rigid=options.rigid,
        named=options.named,
        subjects=subjects_hash(emoji_folder(home), split),
    )
    tokenizer = options.tokenizer or tokenizer_folder(home)
    folder = home / "data" / options.name
    job = EncodingJob(folder, emoji_folder(home), tokenizer, options.vae, settings, dtype=options.dtype)
    count = options.count or (HELD_OUT_COUNT if split in HELD_OUT else DEFAULT_COUNTS[role])
    sys.stdout.write(f"{encode_set(job, count, workers=options.workers)}\n")


if __name__ == "__main__":
    main()
