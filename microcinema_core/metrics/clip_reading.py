"""The frames of a video that are measured: how many, at which rate, from where; at the video's own size."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..data.videos.decode import Survey, frames_at, survey
from ..data.videos.report import Unusable
from ..data.videos.sources import Video

STARTS = ("first", "centre", "random")


@dataclass(frozen=True)
class Sampling:
    """Which frames of each video are read.

    Attributes:
        frames: number of frames; None takes all to the end of the video.
        fps: frames per second; the nearest frame is taken. None takes consecutive frames.
        start: where the frames begin: with the video ("first"), so that they lie in its middle ("centre"), or at a
            place that is drawn from the video's name ("random").

    Raises:
        ValueError: a value is impossible.
    """

    frames: int | None = 16
    fps: float | None = None
    start: str = "first"

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 2:
            raise ValueError(f"--frames is {self.frames}; at least 2 are needed")
        if self.fps is not None and not 0 < self.fps < 1000:
            raise ValueError(f"--fps is {self.fps}; expected a rate above 0, such as 8")
        if self.start not in STARTS:
            raise ValueError(f"--start is {self.start!r}; expected {', '.join(STARTS)}")


@dataclass(frozen=True)
class Clip:
    """Frames of one video, uint8 `f 3 h w`, their true rate, and the video's captions."""

    frames: Tensor
    fps: float
    captions: tuple[str, ...]


def read_clip(video: Video, sampling: Sampling) -> Clip:
    """Read a video's frames, upright, at its own size.

    Raises:
        Unusable: it cannot be decoded, or is too short or too slow for this sampling.
    """
    found = survey(video)
    places = choose_frames(found, sampling, video.id)
    frames = frames_at(video, [int(found.pts[place]) for place in places], size=(found.width, found.height))
    seconds = float(found.times[places[-1]] - found.times[places[0]])
    return Clip(frames, (len(places) - 1) / seconds, video.captions)


def choose_frames(found: Survey, sampling: Sampling, name: str) -> np.ndarray:
    """Return the indices of the frames to read, increasing.

    Raises:
        Unusable: there are too few frames, or they are too far apart.
    """
    times, count = found.times, sampling.frames or _whole(found, sampling.fps)
    if len(times) < count:
        raise Unusable(f"it has {len(times)} frames and {count} are needed; a smaller --frames reads it")
    share = {"first": 0.0, "centre": 0.5}.get(sampling.start, fixed_position(name))
    if sampling.fps is None:
        return round(share * (len(times) - count)) + np.arange(count)
    spare = float(times[-1]) - (count - 1) / sampling.fps
    step = float(np.median(np.diff(times)))
    if spare < -step / 2:
        raise Unusable(
            f"it lasts {times[-1]:.2f} s, and {count} frames at {sampling.fps:g} fps take "
            f"{(count - 1) / sampling.fps:.2f} s; fewer --frames or a higher --fps reads it"
        )
    wanted = share * max(spare, 0.0) + np.arange(count) / sampling.fps
    places = np.abs(times[None, :] - wanted[:, None]).argmin(axis=1)
    if (np.diff(places) < 1).any():
        raise Unusable(f"it has {1 / step:.3g} fps, so frames would repeat at --fps {sampling.fps:g}")
    return places


def _whole(found: Survey, fps: float | None) -> int:
    """Return the number of frames of a whole video, at least 2."""
    count = len(found.times)
    if fps is not None and count > 1:
        step = float(np.median(np.diff(found.times)))
        count = int((float(found.times[-1]) + step / 2) * fps) + 1
    return max(2, count)


def fixed_position(name: str) -> float:
    """Return a fixed number from 0 to 1 for a name."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 0x1_0000_0000
