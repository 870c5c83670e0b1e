"""How much a clip moves, how far its colours drift and how much its brightness flickers."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor

from ..config import centre_index
from ..data.videos.score import motion
from ..frames.colour import colour_drift

NAMES = ("motion", "colour drift", "flicker")
UNITS = ("sides/s", "dE", "levels")
LUMA = (0.299, 0.587, 0.114)


def motion_measures(frames: Tensor, fps: float) -> Tensor:
    """Return motion, colour drift and flicker of uint8 frames `f 3 h w`, (3,).

    Motion is `data.prepare`'s score: the mean optical flow in shorter sides per second.
    """
    return torch.tensor([motion(frames, fps), mean_drift(frames), flicker(frames)])


def mean_drift(frames: Tensor) -> float:
    """Return the L*a*b* distance of each frame's mean colour from the centre frame's, averaged over the other frames.

    Args:
        frames: uint8 `f 3 h w`.
    """
    pictures = frames.float() / 255
    centre = centre_index(len(frames))
    distances = colour_drift(pictures, pictures[centre : centre + 1])
    return float(distances.sum() / (len(frames) - 1))


def flicker(frames: Tensor) -> float:
    """Return how much the brightness of whole frames jitters: the mean absolute second difference, in levels of 255.

    A fade, which changes by the same amount from frame to frame, does not flicker; two frames cannot.

    Args:
        frames: uint8 `f 3 h w`.
    """
    means = reduce(frames.double(), "f c h w -> f c", "mean") @ torch.tensor(LUMA, dtype=torch.float64)
    return float(means.diff(n=2).abs().mean()) if len(frames) > 2 else 0.0
