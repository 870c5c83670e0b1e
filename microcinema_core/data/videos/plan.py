"""What is wanted of the videos, and units: the portions that work is done, kept and repeated in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..shards import write_json
from .report import Unusable
from .sources import Video
from .windows import Rate, paper_rates

SIZE_STEP = 64
"""Sides are multiples of this: 8 for the VAE, another 8 for the U-Net."""

UNITS = "units.json"
Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The shape of clips.

    sizes: width and height of each bucket. Base clips are `frames` frames at `fps`; windows of `window` frames are
    for each of `rounds` fourfold interpolations. most: of each kind, a video. enlarge: how much a picture may grow.
    """

    sizes: tuple[Size, ...] = ((320, 320),)
    frames: int = 9
    fps: float = 2.0
    window: int = 5
    rounds: int = 2
    most: int = 4
    enlarge: float = 2.0

    def __post_init__(self) -> None:
        for size in self.sizes:
            if min(size) < SIZE_STEP or size[0] % SIZE_STEP or size[1] % SIZE_STEP:
                raise ValueError(
                    f"size {name_of(size)}: both sides must be multiples of {SIZE_STEP}, as in 320x320"
                )
        for name, value, least in (
            ("frames", self.frames, 2),
            ("window", self.window, 3),
            ("most", self.most, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; at least {least} is needed")
        if self.fps <= 0 or self.rounds < 0:
            raise ValueError(
                f"fps is {self.fps} and rounds {self.rounds}; expected more than 0, and 0 or more"
            )

    @property
    def rates(self) -> list[Rate]:
        return paper_rates(self.frames, self.fps, rounds=self.rounds, window=self.window)

    def bucket(self, width: int, height: int) -> Size:
        """The size of nearest aspect.

        Raises:
            Unusable: the picture would have to grow too much.
        """
        aspect = math.log(width / height)
        size = min(self.sizes, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))
        growth = max(size[0] / width, size[1] / height)
        if growth > self.enlarge:
            raise Unusable(
                f"its pictures are {width}x{height}: they would be enlarged {growth:.1f} times to {name_of(size)}; "
                f"at most {self.enlarge:g} times (--enlarge)"
            )
        return size


def name_of(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def parse_sizes(text: str) -> tuple[Size, ...]:
    """`320x320,448x256` -> ((320, 320), (448, 256)), width first."""
    try:
        pairs = [part.lower().split("x") for part in text.split(",")]
        return tuple((int(width), int(height)) for width, height in pairs)
    except ValueError as error:
        raise ValueError(
            f"sizes {text!r}: expected WIDTHxHEIGHT, several with commas: 320x320,448x256"
        ) from error


def key_of(value: Any) -> str:
    """A hash of anything that JSON can write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Unit:
    """Videos that are scored together and encoded to one shard of each set."""

    videos: tuple[Video, ...]

    @property
    def name(self) -> str:
        return key_of([video.key for video in self.videos])

    def to_json(self) -> str:
        return json.dumps([{**asdict(video), "path": str(video.path)} for video in self.videos])

    @classmethod
    def from_json(cls, text: str) -> Unit:
        rows = json.loads(text)
        fields = [{**row, "path": Path(row["path"]), "captions": tuple(row["captions"])} for row in rows]
        return cls(tuple(Video(**row) for row in fields))


def units_of(videos: Sequence[Video], held: Sequence[Sequence[str]], size: int) -> list[Unit]:
    """Videos in units of at most `size`. Units that are `held` (the videos' keys) and still whole stay as they are,
    so that new, changed and vanished videos cost their own work alone."""
    known = {video.key: video for video in videos}
    whole = [keys for keys in held if len(keys) <= size and all(key in known for key in keys)]
    placed = {key for keys in whole for key in keys}
    rest = [video for video in videos if video.key not in placed]
    new = [rest[start : start + size] for start in range(0, len(rest), size)]
    return [Unit(tuple(known[key] for key in keys)) for keys in whole] + [Unit(tuple(part)) for part in new]


def arrange(out: Path, videos: Sequence[Video], size: int) -> list[Unit]:
    """Units of these videos, remembered in `out`."""
    path = out / UNITS
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    units = units_of(videos, held, size)
    write_json(path, [[video.key for video in unit.videos] for unit in units])
    return units


def shard_of(group: str) -> float:
    """A fixed number from 0 to 1 for what must not be split between training and test."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 0x1_0000_0000


def split_bound(videos: Sequence[Video], part: float) -> float:
    """Groups whose share is below this are for testing. At least one group is, where `part` is above 0 and there are
    two groups or more; a group that was once trained on never becomes one by videos that are added."""
    shares = sorted({shard_of(video.group) for video in videos})
    if part <= 0 or len(shares) < 2:
        return 0.0
    return max(part, shares[0] + 1e-9)
