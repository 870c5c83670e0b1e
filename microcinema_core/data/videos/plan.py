"""The shape of the clips, and the division of videos into units that are processed and stored together."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import json_text
from ...messages import one_line
from ..shards import write_json
from .report import Unusable
from .sources import Video
from .windows import Rate, paper_rates

logger = logging.getLogger(__name__)

SIZE_STEP = 64
"""Sides are multiples of this: 8 for the VAE, another 8 for the U-Net."""

MAX_FPS, MAX_ROUNDS = 1000.0, 9
"""Above all frame rates of videos, and above all rounds that they have frames for."""

UNITS = "units.json"
Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True)
class Geometry:
    """The shape of the clips. Its fields are part of the cache's keys.

    Attributes:
        sizes: width and height of each bucket, multiples of SIZE_STEP.
        frames: frames of a base clip.
        fps: rate of base clips.
        window: frames of an interpolation window.
        rounds: rounds of fourfold interpolation to cut windows for.
        most: most clips of each kind that one video gives.
        enlarge: largest factor by which frames may be enlarged.
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
                    f"size {size_name(size)}: both sides must be multiples of {SIZE_STEP}, as in 320x320"
                )
        for name, value, least in (
            ("frames", self.frames, 2),
            ("window", self.window, 3),
            ("most", self.most, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; at least {least} is needed")
        if not 0 < self.fps < MAX_FPS or not 0 <= self.rounds < MAX_ROUNDS:
            raise ValueError(
                f"fps is {self.fps} and rounds {self.rounds}; expected more than 0 and less than {MAX_FPS:g}, and 0 to "
                f"{MAX_ROUNDS - 1}"
            )
        if not 0 < self.enlarge < math.inf:
            raise ValueError(f"enlarge is {self.enlarge}; a number above 0 is needed, 1 for no enlargement")

    @property
    def rates(self) -> list[Rate]:
        """The rates of the windows to cut: the base model's, then one for each round of interpolation."""
        return paper_rates(self.frames, self.fps, rounds=self.rounds, window=self.window)

    def bucket(self, width: int, height: int) -> Size:
        """Return the bucket of nearest aspect ratio for frames of this size.

        Raises:
            Unusable: the frames would have to be enlarged too much.
        """
        aspect = math.log(width / height)
        size = min(self.sizes, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))
        growth = max(size[0] / width, size[1] / height)
        if growth > self.enlarge:
            raise Unusable(
                f"its frames are {width}x{height} and would be enlarged {growth:.1f} times to {size_name(size)}; "
                f"at most {self.enlarge:g} times is allowed (--enlarge)"
            )
        return size


def size_name(size: Size) -> str:
    """Return a size as WIDTHxHEIGHT."""
    return f"{size[0]}x{size[1]}"


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Parse `320x320,448x256` into ((320, 320), (448, 256)), width first.

    Raises:
        ValueError: the text has another form.
    """
    try:
        pairs = [part.lower().split("x") for part in text.split(",")]
        return tuple((int(width), int(height)) for width, height in pairs)
    except ValueError as error:
        raise ValueError(
            f"sizes {text!r}: expected WIDTHxHEIGHT, several with commas: 320x320,448x256"
        ) from error


def content_key(value: Any) -> str:
    """Return a hash of any value that can be written as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class WorkUnit:
    """Videos that one worker scores together, and encodes to one shard of each set."""

    videos: tuple[Video, ...]

    @property
    def name(self) -> str:
        """A hash of its videos."""
        return content_key([video.key for video in self.videos])

    def to_json(self) -> str:
        """Return the videos as JSON, to send them to a Ray worker."""
        return json.dumps([{**asdict(video), "path": str(video.path)} for video in self.videos])

    @classmethod
    def from_json(cls, text: str) -> WorkUnit:
        """Build a unit from `to_json`."""
        rows = json.loads(text)
        fields = [{**row, "path": Path(row["path"]), "captions": tuple(row["captions"])} for row in rows]
        return cls(tuple(Video(**row) for row in fields))


def make_units(videos: Sequence[Video], earlier: Sequence[Sequence[str]], size: int) -> list[WorkUnit]:
    """Divide videos into units of at most `size`.

    Units of an earlier run whose videos are all still there stay as they are, so that new, changed and removed videos
    cause no work beyond their own.

    Args:
        videos: all scanned videos.
        earlier: the keys of the videos of each earlier unit.
        size: most videos of a unit.
    """
    known = {video.key: video for video in videos}
    whole = [keys for keys in earlier if len(keys) <= size and all(key in known for key in keys)]
    placed = {key for keys in whole for key in keys}
    rest = [video for video in videos if video.key not in placed]
    new = [rest[start : start + size] for start in range(0, len(rest), size)]
    return [WorkUnit(tuple(known[key] for key in keys)) for keys in whole] + [
        WorkUnit(tuple(part)) for part in new
    ]


def update_units(out: Path, videos: Sequence[Video], size: int) -> list[WorkUnit]:
    """Divide videos into units, and record the division in `out` for the next run."""
    path = out / UNITS
    units = make_units(videos, _earlier_units(path), size)
    write_json(path, [[video.key for video in unit.videos] for unit in units])
    return units


def _earlier_units(path: Path) -> list[list[str]]:
    """Return the keys of the videos of each unit of the run before; none where the record is damaged."""
    if not path.exists():
        return []
    try:
        found = json_text.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(key, str) for keys in found for key in keys):
            return [list(keys) for keys in found]
    except (ValueError, TypeError):
        pass
    logger.warning("%s is damaged; videos are divided into units anew", one_line(path))
    return []


def split_position(group: str) -> float:
    """Return a fixed number from 0 to 1 for a group of videos; those below `split_bound` are for testing."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 0x1_0000_0000


def split_bound(videos: Sequence[Video], fraction: float) -> float:
    """Return the bound below which a group's `split_position` makes it a test group.

    With a `fraction` above 0 and at least two groups, at least one group is for testing. From two groups on, adding
    videos never turns a group that was trained on into a test group.
    """
    positions = sorted({split_position(video.group) for video in videos})
    if fraction <= 0 or len(positions) < 2:
        return 0.0
    return max(fraction, positions[0] + 1e-9)
