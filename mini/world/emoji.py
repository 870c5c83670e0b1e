"""Prepare the mini world: `python -m mini.world.emoji prepare [--home DIR]`.

Every animation becomes one memory-mappable array (frames, 112, 112, 4) of uint8, premultiplied RGBA.
`catalogue.jsonl` records what each one shows, whether its loop closes, and which split it belongs to.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from microcinema_core.files.archives import open_tar
from microcinema_core.files.atomic import atomic_write
from microcinema_core.files.paths import home_folder

from . import looks, motion_split, packages

logger = logging.getLogger(__name__)

SIZE = 112
"""Edge of the prepared frames in pixels."""
CLOSE_RATIO = 2.0
"""A loop closes if its last frame differs from the first by at most this many times the median step."""
DUPLICATE_RATIO = 0.25
"""The last frame repeats the first if they differ by at most this share of the median step."""

LoopFacts = dict[str, float | int | bool]


def emoji_folder(home: Path) -> Path:
    """Return the folder of the prepared emoji: `catalogue.jsonl` and `frames/<id>.npy`."""
    return home / "data" / "emoji"


@dataclass(frozen=True)
class Emoji:
    """One catalogue entry.

    Attributes:
        id: hexadecimal code points joined by `-`.
        motion_key: key shared by all variants of one motion (`motion_split`).
        split: `train`, `validation`, `test` or `held` (in none).
        frames: stored frames.
        loop_frames: length of the loop: `frames`, or one less if the last frame repeats the first.
        closes: whether the step from the last frame to the first is no larger than ordinary steps.
        median_difference: median step, as a mean over pixels and channels, in levels of 255.
        wrap_difference: the step from the loop's last frame to its first, in the same units.
        name, keywords: name and keywords from emojilib.
        skin, gender: words for the skin tones and genders in the code points.
    """

    id: str
    motion_key: str
    split: str
    frames: int
    loop_frames: int
    closes: bool
    median_difference: float
    wrap_difference: float
    name: str
    keywords: tuple[str, ...]
    skin: tuple[str, ...]
    gender: tuple[str, ...]

    @property
    def animated(self) -> bool:
        """Whether there is more than one frame."""
        return self.frames > 1

    @classmethod
    def from_dict(cls, entry: dict) -> Emoji:
        """Build the entry from a line of the catalogue."""
        lists = {name: tuple(entry[name]) for name in ("keywords", "skin", "gender")}
        return cls(**{**entry, **lists})


def decode(data: bytes) -> np.ndarray:
    """Decode an animated or still WebP to premultiplied RGBA, uint8 (frames, 112, 112, 4), frames composed."""
    with Image.open(io.BytesIO(data)) as image:
        side = max(image.size)
        corner = ((side - image.width) // 2, (side - image.height) // 2)
        frames = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            frame = image.convert("RGBA")
            if frame.width != frame.height:
                square = Image.new("RGBA", (side, side))
                square.paste(frame, corner)
                frame = square
            frames.append(np.asarray(frame.convert("RGBa").resize((SIZE, SIZE), Image.Resampling.HAMMING)))
    return np.stack(frames)


def measure_loop(frames: np.ndarray) -> LoopFacts:
    """Measure the catalogue's fields on the loop, from an array (frames, height, width, 4)."""
    count = len(frames)
    still = {"frames": count, "loop_frames": count, "median_difference": 0.0, "wrap_difference": 0.0}
    if count == 1:
        return {**still, "closes": True}
    steps = [_difference(frames[i], frames[i + 1]) for i in range(count - 1)]
    median = float(np.median(steps))
    wrap = _difference(frames[-1], frames[0])
    repeats_first = wrap <= DUPLICATE_RATIO * median
    if repeats_first:
        wrap = steps[-1]
    return {
        "frames": count,
        "loop_frames": count - 1 if repeats_first else count,
        "median_difference": round(median, 4),
        "wrap_difference": round(wrap, 4),
        "closes": bool(repeats_first or wrap <= CLOSE_RATIO * median),
    }


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(np.int16) - second).mean())


def _decode_and_measure(task: tuple[str, bytes, Path]) -> tuple[str, LoopFacts]:
    identity, data, path = task
    if path.exists():
        return identity, measure_loop(np.load(path, mmap_mode="r"))
    frames = decode(data)
    with atomic_write(path, suffix=".npy") as part:
        np.save(part, frames)
    return identity, measure_loop(frames)


def _tasks(tarball: Path, folder: Path) -> Iterator[tuple[str, bytes, Path]]:
    with open_tar(tarball) as archive:
        for member in archive.getmembers():
            if member.name.endswith(".webp") and (file := archive.extractfile(member)):
                identity = Path(member.name).stem.lower()
                yield identity, file.read(), folder / f"{identity}.npy"


def prepare(home: Path, *, workers: int | None = None) -> Path:
    """Fetch, decode and catalogue everything, keeping what exists; return the emoji folder.

    Args:
        home: `$MICROCINEMA_HOME`.
        workers: decoding processes; default: one per core.
    """
    downloads = home / "downloads"
    words = packages.read_words(packages.fetch(packages.KEYWORD_PACKAGE, downloads))
    folder = emoji_folder(home)
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    measured: dict[str, LoopFacts] = {}
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
        for package in packages.EMOJI_PACKAGES:
            tarball = packages.fetch(package, downloads)
            for identity, loop in pool.imap_unordered(
                _decode_and_measure, _tasks(tarball, folder / "frames")
            ):
                measured[identity] = loop
            logger.info("decoded %s: %d emoji so far", package.name, len(measured))
    write_catalogue(folder, measured, words)
    return folder


def write_catalogue(
    folder: Path, measured: dict[str, LoopFacts], words: dict[str, packages.EmojiWords]
) -> None:
    """Write `catalogue.jsonl`, sorted by id, one entry per line; emoji without a name are left out."""
    named = {}
    for identity in sorted(measured):
        if found := words.get(packages.lookup_key(identity)):
            named[identity] = found
        else:
            logger.warning("emojilib has no name for %s; left out", identity)
    keys = {identity: motion_split.motion_key(identity) for identity in named}
    splits = looks.splits(list(keys.values()), (open_frames(folder, identity) for identity in named))
    lines = []
    for identity, found in named.items():
        key = keys[identity]
        entry = {
            "id": identity,
            "motion_key": key,
            "split": splits[key],
            **measured[identity],
            **asdict(found),
            "skin": motion_split.skin_words(identity),
            "gender": motion_split.gender_words(identity),
        }
        lines.append(json.dumps(entry))
    with atomic_write(folder / "catalogue.jsonl") as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_catalogue(folder: Path, split: str | None = None) -> list[Emoji]:
    """Read the entries of one split (`train`, `validation`, `test`, `held`), or all of them.

    Raises:
        ValueError: the folder was not prepared, or the split is unknown or empty.
    """
    path = Path(folder) / "catalogue.jsonl"
    if not path.exists():
        raise ValueError(f"{path} is missing; run: python3 dev.py python -m mini.world.emoji prepare")
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [Emoji.from_dict(json.loads(line)) for line in lines]
    chosen = [entry for entry in entries if split in (None, entry.split)]
    if not chosen:
        raise ValueError(
            f"split {split!r} of {path} is empty; expected one of train, validation, test, held (a catalogue without "
            "validation is an earlier version's: run python3 dev.py python -m mini.world.emoji prepare again)"
        )
    return chosen


def open_frames(folder: Path, identity: str) -> np.ndarray:
    """Open the frames of one emoji, memory-mapped: premultiplied RGBA, uint8 (frames, 112, 112, 4)."""
    return np.load(Path(folder) / "frames" / f"{identity}.npy", mmap_mode="r")


def summary(folder: Path) -> str:
    """Return the counts of motion keys, animations and stills of each split, for printing."""
    entries = read_catalogue(folder)
    lines = []
    for split in ("train", "validation", "test", "held"):
        part = [entry for entry in entries if entry.split == split]
        moving = [entry for entry in part if entry.animated]
        lines.append(
            f"{split}: {len({e.motion_key for e in part})} motion keys, {len(moving)} animations "
            f"({sum(e.closes for e in moving)} closed loops), {len(part) - len(moving)} stills"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.emoji",
        description="Fetch and prepare the animated Fluent Emoji.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="fetch, decode and catalogue")
    command.add_argument("--home", help="default: $MICROCINEMA_HOME, else the user's cache directory")
    command.add_argument("--workers", type=int, help="decoding processes; default: one per core")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        folder = prepare(home_folder(options.home), workers=options.workers)
    except (OSError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")
    sys.stdout.write(f"{folder}\n{summary(folder)}\n")


if __name__ == "__main__":
    main()
