"""A light preview of a video: few and small frames, so that encoding takes two seconds at most, whatever the video."""

from __future__ import annotations

import math
from typing import NamedTuple

from einops import rearrange
from torch import Tensor

from .centre_frame import resize

MAX_SIDE = 512
"""Longer side in pixels."""
MAX_FRAMES = 129
"""Number of frames, that of two rounds of TSR."""
MAX_FPS = 50.0
"""Frames a second. Browsers play animated pictures of 100 frames a second or more far too slowly."""


class Preview(NamedTuple):
    """Every nth frame of a video.

    Attributes:
        frames: RGB `f 3 h w` in [0, 1], a view of the video's.
        fps: frame rate at which they take as long as the video.
    """

    frames: Tensor
    fps: float


def thin_out(frames: Tensor, fps: float) -> Preview:
    """Return every frame `f 3 h w` of a video, or every 2nd, 3rd ... if it exceeds `MAX_FRAMES` or `MAX_FPS`."""
    step = max(math.ceil(len(frames) / MAX_FRAMES), math.ceil(fps / MAX_FPS))
    return Preview(frames[::step], fps / step)


def shrink(frame: Tensor) -> Tensor:
    """Reduce a frame `3 h w` to `MAX_SIDE` and return it as `h w 3`; a smaller one keeps its size."""
    height, width = frame.shape[-2:]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        sides = {"height": max(1, round(height * scale)), "width": max(1, round(width * scale))}
        frame = resize(frame[None], **sides)[0]
    return rearrange(frame, "c h w -> h w c")
