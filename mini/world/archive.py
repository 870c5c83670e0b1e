"""The mini world in one file, to train on another machine: `python -m mini.world.archive make FILE`.

A zip of the subjects of train and validation: every fourth frame of each animation and each still (8 of them in a row,
as a lossy WebP with alpha), the photographs of the backgrounds, and captions as tokens, so that neither a tokenizer nor
the packages that the world is made from are needed there. Frames are those of the prepared emoji, 112 pixels: pictures
show them pixel for pixel.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from microcinema_core.files.atomic import atomic_write
from microcinema_core.files.paths import home_folder, tokenizer_folder

from .backgrounds import TRAIN_PHOTOS, VALIDATION_PHOTOS, photograph
from .emoji import SIZE, Emoji, emoji_folder, open_frames, read_catalogue

logger = logging.getLogger(__name__)

R = TypeVar("R")

FORMAT = 1
STRIDE = 4
"""Frames of an animation per sprite. The base model's frames are 16 apart."""
COLUMNS = 8
"""Sprites in a row of a picture."""
LIMIT_MB = 40.0
QUALITIES = (60, 50, 42, 36, 30, 24, 18)
ALIKE = 0.6
"""Mean difference, in levels of 255, below which two sprites of an animation are stored once."""
PHOTO_SIDE = 192
SPLITS = ("train", "validation")
INDEX, CAPTIONS = "index.json", "captions.safetensors"


@dataclass(frozen=True)
class Entry:
    """A subject in an archive.

    Attributes:
        id, motion_key, split, closes: as in the catalogue.
        order: number of the stored sprite at each place of the animation.
    """

    id: str
    motion_key: str
    split: str
    closes: bool
    order: tuple[int, ...]

    @property
    def stored(self) -> int:
        """Number of stored sprites."""
        return max(self.order) + 1


@dataclass(frozen=True)
class Archive:
    """What an archive holds.

    Attributes:
        entries: the subjects.
        sprites: premultiplied RGBA, uint8 `n 4 s s`, those of all subjects in order.
        photos: RGB of each split, uint8 `n 3 h w`.
        captions: the tensors of `caption_bank.CaptionBank`.
    """

    entries: list[Entry]
    sprites: Tensor
    photos: dict[str, Tensor]
    captions: dict[str, Tensor]


def sampled(entry: Emoji) -> list[int]:
    """Return the frames of an emoji that become sprites: evenly spaced over a loop, about `STRIDE` apart."""
    if not entry.closes:
        return list(range(0, entry.frames, STRIDE))
    count = max(1, round(entry.loop_frames / STRIDE))
    return [round(i * entry.loop_frames / count) for i in range(count)]


def distinct(frames: np.ndarray) -> tuple[int, ...]:
    """Return, for each frame, the number of the first kept one that looks the same."""
    kept: list[np.ndarray] = []
    order = []
    for frame in frames.astype(np.float32):
        near = (number for number, one in enumerate(kept) if np.abs(one - frame).mean() < ALIKE)
        number = next(near, len(kept))
        if number == len(kept):
            kept.append(frame)
        order.append(number)
    return tuple(order)


def _encoded(folder: Path, quality: int, entry: Emoji) -> tuple[Entry, bytes]:
    frames = np.array(open_frames(folder, entry.id)[sampled(entry)])
    order = distinct(frames)
    kept = [frames[order.index(number)] for number in range(max(order) + 1)]
    columns = min(COLUMNS, len(kept))
    sheet = Image.new("RGBA", (SIZE * columns, SIZE * -(-len(kept) // columns)))
    for number, frame in enumerate(kept):
        sprite = Image.frombuffer("RGBa", (SIZE, SIZE), frame.tobytes(), "raw", "RGBa", 0, 1).convert("RGBA")
        sheet.paste(sprite, (SIZE * (number % columns), SIZE * (number // columns)))
    data = io.BytesIO()
    sheet.save(data, "WEBP", quality=quality, alpha_quality=max(30, quality), method=5)
    return Entry(entry.id, entry.motion_key, entry.split, entry.closes, order), data.getvalue()


def decode_sprites(data: bytes, count: int) -> np.ndarray:
    """Decode an archive's picture to premultiplied RGBA, uint8 `count 4 s s`."""
    with Image.open(io.BytesIO(data)) as image:
        sheet = np.asarray(image.convert("RGBA").convert("RGBa"))
    rows, columns = sheet.shape[0] // SIZE, sheet.shape[1] // SIZE
    tiles = sheet.reshape(rows, SIZE, columns, SIZE, 4).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, 4, SIZE, SIZE)[:count])


def _photo(name: str) -> bytes:
    photo = photograph(name)
    edge = min(photo.size)
    left, top = (photo.width - edge) // 2, (photo.height - edge) // 2
    square = photo.crop((left, top, left + edge, top + edge)).resize(
        (PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BOX
    )
    data = io.BytesIO()
    square.save(data, "WEBP", quality=60)
    return data.getvalue()


def make(
    folder: Path,
    tokenizer: Path,
    target: Path,
    *,
    limit_mb: float = LIMIT_MB,
    workers: int = 1,
    seed: int = 0,
) -> int:
    """Write an archive of the prepared emoji at the best quality that fits, and return that quality.

    Args:
        folder: the prepared emoji.
        tokenizer: folder of CLIP's tokenizer.
        target: the file.
        limit_mb: largest size in megabytes.
        workers: encoding processes.
        seed: of the captions.

    Raises:
        ValueError: the archive would be larger at the lowest quality.
    """
    from .caption_bank import make_bank

    entries = [entry for split in SPLITS for entry in read_catalogue(folder, split)]
    rest = {
        CAPTIONS: save(make_bank(entries, tokenizer, seed=seed)),
        **{f"photos/{name}.webp": _photo(name) for name in (*TRAIN_PHOTOS, *VALIDATION_PHOTOS)},
    }
    room = limit_mb * 1e6 - sum(map(len, rest.values())) - 400 * len(entries)
    quality = _fitting_quality(folder, entries, room)
    while True:
        files = dict(_map(partial(_encoded, folder, quality), workers, entries))
        if sum(map(len, files.values())) <= room:
            break
        logger.info("quality %d takes %.1f MB, too much", quality, sum(map(len, files.values())) / 1e6)
        if quality == QUALITIES[-1]:
            raise ValueError(
                f"the sprites take {sum(map(len, files.values())) / 1e6:.1f} MB at the lowest quality, and --limit "
                f"leaves {room / 1e6:.1f}: choose a higher limit"
            )
        quality = QUALITIES[QUALITIES.index(quality) + 1]
    index = {
        "format": FORMAT,
        "size": SIZE,
        "sprites": [asdict(entry) for entry in files],
        "photos": {"train": TRAIN_PHOTOS, "validation": VALIDATION_PHOTOS},
    }
    with atomic_write(target) as part, zipfile.ZipFile(part, "w") as archive:
        archive.writestr(INDEX, json.dumps(index), zipfile.ZIP_DEFLATED)
        for name, data in rest.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name == CAPTIONS else zipfile.ZIP_STORED)
        for entry, data in files.items():
            archive.writestr(f"sprites/{entry.id}.webp", data)
    return quality


def _fitting_quality(folder: Path, entries: Sequence[Emoji], room: float) -> int:
    """Return the best quality at which a sample of the subjects says that all will fit."""
    some = entries[:: max(1, len(entries) // 100)]
    for quality in QUALITIES:
        size = sum(len(_encoded(folder, quality, entry)[1]) for entry in some)
        if size * len(entries) / len(some) < room:
            return quality
    return QUALITIES[-1]


def _map(function: Callable[..., R], workers: int, *items: Sequence[Any]) -> list[R]:
    """Return a function's results, computed by so many processes."""
    if workers < 2:
        return list(map(function, *items))
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(function, *items, chunksize=16))


def read_archive(path: Path, *, workers: int = 1) -> Archive:
    """Read and decode an archive.

    Raises:
        ValueError: the file is missing, no archive, or one of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            index = json.loads(archive.read(INDEX))
            if index["format"] != FORMAT or index["size"] != SIZE:
                raise ValueError(
                    f"its format is {index['format']} and its sprites have {index['size']} pixels"
                )
            entries = [Entry(**{**entry, "order": tuple(entry["order"])}) for entry in index["sprites"]]
            pictures = [archive.read(f"sprites/{entry.id}.webp") for entry in entries]
            photos = {
                split: [archive.read(f"photos/{name}.webp") for name in names]
                for split, names in index["photos"].items()
            }
            captions = load(archive.read(CAPTIONS))
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no archive of the mini world ({error}); `python -m mini.world.archive make FILE` writes one"
        ) from error
    counts = [entry.stored for entry in entries]
    decoded = _map(decode_sprites, workers, pictures, counts)
    sprites = torch.from_numpy(np.concatenate(decoded))
    return Archive(entries, sprites, {split: _rgb(data) for split, data in photos.items()}, captions)


def _rgb(pictures: Sequence[bytes]) -> Tensor:
    arrays = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            arrays.append(np.asarray(image.convert("RGB")))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.archive",
        description="Pack the mini world into one file, to train elsewhere.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("make", help="write the archive of the prepared emoji")
    command.add_argument("file", type=Path, help="the file to write, such as mini_world.zip")
    command.add_argument("--limit", type=float, default=LIMIT_MB, metavar="MB", help="default: %(default)g")
    command.add_argument("--workers", type=int, default=1, help="processes; default: %(default)s")
    command.add_argument("--home", help="default: $MICROCINEMA_HOME, else the user's cache directory")
    command.add_argument("--tokenizer", type=Path, help="folder with CLIP's vocab.json; default: ComfyUI's")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    home = home_folder(options.home)
    try:
        quality = make(
            emoji_folder(home),
            options.tokenizer or tokenizer_folder(home),
            options.file,
            limit_mb=options.limit,
            workers=options.workers,
        )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB, quality {quality}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
