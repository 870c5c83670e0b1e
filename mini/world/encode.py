"""Render clips and encode them: `python -m mini.world.encode NAME --vae FILE [--count N]`.

NAME is `image`, `base` or `tsr` (a suffix after `-` keeps variants apart); one that ends in `-test` holds
the test split. Shards that exist are kept, so a stopped run goes on, and a larger `--count` adds to them.
"""

from __future__ import annotations

import argparse
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
from torch import Tensor

from microcinema_core.data.shards import INDEX, shard_length, shard_path, write_json, write_shard
from microcinema_core.data.tokens import CaptionTokenizer
from microcinema_core.files.paths import emoji_folder, home_folder, tokenizer_folder

from .clips import FPS, FRAMES, MOVED_SHARE, ROLES, STILL_SHARE, ClipSampler, Role, Sample
from .encoder import EncodeMoments, encoder_hash, load_encoder
from .render import render

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
DEFAULT_COUNTS: dict[Role, int] = {"image": 40960, "base": 16384, "tsr": 16384}
TEST_COUNT = 1024


@dataclass(frozen=True)
class Settings:
    """All that the content of a set depends on, but its length."""

    role: Role
    split: str
    encoder_hash: str
    seed: int = 0
    captions_per_clip: int = 4
    shard_size: int = 512
    moved: float = MOVED_SHARE


@dataclass(frozen=True)
class Job:
    """Where things are, and how they are run."""

    folder: Path
    emoji: Path
    tokenizer: Path
    vae: Path
    settings: Settings
    dtype: str = "bf16"
    batch_frames: int = 32
    threads: int = 1


def parse_name(name: str) -> tuple[Role, str]:
    """Role and split of a set's name: `base-test` -> (`base`, `test`)."""
    role, *rest = name.split("-")
    if role not in ROLES:
        raise ValueError(f"set {name!r} starts with none of {', '.join(ROLES)}; name it base, base-test, ...")
    return role, "test" if rest and rest[-1] == "test" else "train"


def encode_shard(
    sampler: ClipSampler,
    tokenizer: CaptionTokenizer,
    encode: EncodeMoments,
    indices: range,
    *,
    batch_frames: int,
) -> tuple[dict[str, Tensor], list[dict]]:
    """Tensors of one shard, as the reader describes them, and the recipes of its clips.

    `encode` takes pictures (n, 3, h, w) in [-1, 1] and gives mean and std (n, c, h / 8, w / 8).
    """
    samples = [sampler[index] for index in indices]
    moments = [encode(frames) for frames in _frame_batches(sampler, samples, batch_frames)]
    mean, std = (torch.cat([pair[i].half() for pair in moments]) for i in (0, 1))
    shape = (len(samples), FRAMES[sampler.role], *mean.shape[1:])
    groups = {key: number for number, key in enumerate(sampler.motion_keys)}
    tensors = {
        "mean": mean.reshape(shape).contiguous(),
        "std": std.reshape(shape).contiguous(),
        "tokens": torch.stack([tokenizer(sample.captions) for sample in samples]),
        "fps": torch.tensor([sample.fps for sample in samples], dtype=torch.float32),
        "group": torch.tensor([groups[s.clip.emoji.motion_key] for s in samples], dtype=torch.int32),
    }
    return tensors, [sample.recipe() for sample in samples]


def _frame_batches(sampler: ClipSampler, samples: list[Sample], batch_frames: int) -> Iterator[Tensor]:
    """All frames of all samples, in order, in batches of whole clips."""
    clips = max(1, batch_frames // FRAMES[sampler.role])
    for start in range(0, len(samples), clips):
        part = samples[start : start + clips]
        yield torch.cat([render(sampler.folder, sample.clip, sample.times) for sample in part])


_worker: dict[str, Any] = {}


def _start_worker(job: Job) -> None:
    torch.set_num_threads(job.threads)
    _worker["job"] = job
    _worker["sampler"] = _sampler(job)
    _worker["tokenizer"] = CaptionTokenizer(job.tokenizer)
    _worker["encode"] = load_encoder(job.vae, dtype=job.dtype)


def _work(task: tuple[int, int]) -> tuple[int, int]:
    number, length = task
    job: Job = _worker["job"]
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


def _sampler(job: Job) -> ClipSampler:
    settings = job.settings
    return ClipSampler(
        job.emoji,
        settings.split,
        settings.role,
        seed=settings.seed,
        captions=settings.captions_per_clip,
        moved=settings.moved,
    )


def plan(job: Job, count: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Lengths of all shards for `count` clips, and those (number, length) that are still to be written."""
    size = job.settings.shard_size
    lengths = [min(size, count - first) for first in range(0, count, size)]
    todo = []
    for number, length in enumerate(lengths):
        path = shard_path(job.folder, number)
        if path.exists() and (held := shard_length(path)) >= length:
            lengths[number] = held
        else:
            todo.append((number, length))
    return lengths, todo


def check_settings(job: Job) -> None:
    """Record the settings of a new set; those of an old one must be the same.

    Raises:
        ValueError: the folder was encoded with other settings.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    path, wanted = job.folder / SETTINGS, asdict(job.settings)
    if not path.exists():
        write_json(path, wanted)
        return
    held = json.loads(path.read_text(encoding="utf-8"))
    if held != wanted:
        names = [key for key in wanted if held.get(key) != wanted[key]]
        raise ValueError(
            f"{job.folder} was encoded with "
            + ", ".join(f"{name} = {held.get(name)!r} (now {wanted[name]!r})" for name in names)
            + "; delete it, or choose another name"
        )


def encode_set(job: Job, count: int, *, workers: int = 1) -> Path:
    """Encode `count` clips and write the index; complete shards are kept. Returns the set's folder."""
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


def _run(job: Job, todo: list[tuple[int, int]], workers: int) -> Iterator[tuple[int, int]]:
    if workers <= 1 or len(todo) <= 1:
        if todo:
            _start_worker(job)
        yield from map(_work, todo)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_start_worker, initargs=(job,)) as pool:
        yield from pool.imap_unordered(_work, todo)


def _index(job: Job, lengths: list[int]) -> dict[str, Any]:
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.encode",
        description="Render clips of the mini world and encode them with a VAE.",
    )
    parser.add_argument("name", help="image, base or tsr; with -test for the test split")
    parser.add_argument("--vae", type=Path, required=True, help="a MicroCinema file that holds a VAE")
    parser.add_argument("--count", type=int, help=f"clips; default: {DEFAULT_COUNTS}, test {TEST_COUNT}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--moved", type=float, default=MOVED_SHARE,
        help="share of base and tsr clips whose animation has a motion added, beside the "
        f"{STILL_SHARE:.0%}% of stills that have one; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--captions", type=int, default=4, help="captions a clip")
    parser.add_argument("--home", help="default: $MICROCINEMA_HOME, else the user's cache directory")
    parser.add_argument("--tokenizer", type=Path, help="folder of CLIP's vocab.json; default: the host's")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    home = home_folder(options.home)
    role, split = parse_name(options.name)
    if not 0 <= options.moved <= 1 - STILL_SHARE:
        parser.error(f"--moved is {options.moved:g}; a share from 0 to {1 - STILL_SHARE:g} was expected")
    if role == "image" and options.moved != MOVED_SHARE:
        parser.error("--moved is of clips: single pictures, of a set `image`, do not move")
    settings = Settings(
        role,
        split,
        encoder_hash(options.vae),
        seed=options.seed,
        captions_per_clip=options.captions,
        moved=options.moved,
    )
    tokenizer = options.tokenizer or tokenizer_folder(home)
    folder = home / "data" / options.name
    job = Job(folder, emoji_folder(home), tokenizer, options.vae, settings, dtype=options.dtype)
    count = options.count or (TEST_COUNT if split == "test" else DEFAULT_COUNTS[role])
    sys.stdout.write(f"{encode_set(job, count, workers=options.workers)}\n")


if __name__ == "__main__":
    main()
