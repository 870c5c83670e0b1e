"""Colours of a clip against those of one picture: how far they drift, and how they are brought back.

A video is to look like its centre frame (section 3.1 of the paper); decoders and long chains of clips let the colours
wander. Colours are compared in CIE L*a*b*, where a distance of about 2.3 is one that an eye just sees (Mahy et al.,
1994), and matched there by mean and deviation (Reinhard et al., "Color Transfer between Images", 2001). Frames are RGB
`(f, 3, h, w)` with values 0 to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import reduce
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

_AT_ONCE = 16
"""Frames that are converted at once, so that a long clip is never held in both colour spaces."""
_FLAT = 0.5
"""Deviation in L*a*b* below which a channel has no contrast that could be scaled."""
_MEASURED_SIDE = 64
"""Pixels of a side that are enough for a mean colour."""


def colour_drift(frames: Tensor, anchor: Tensor) -> Tensor:
    """Distance `(f,)` in L*a*b* of each frame's mean colour from that of `anchor` `(1, 3, h', w')`."""
    means = torch.cat([_mean_colour(part) for part in frames.split(_AT_ONCE)])
    return (means - _mean_colour(anchor)).norm(dim=1)


def _mean_colour(frames: Tensor) -> Tensor:
    height, width = (min(side, _MEASURED_SIDE) for side in frames.shape[-2:])
    return reduce(rgb_to_lab(F.adaptive_avg_pool2d(frames, (height, width))), "f c h w -> f c", "mean")


def match_colours(frames: Tensor, anchor: Tensor, *, strength: float) -> Tensor:
    """Give each frame the mean and deviation in L*a*b* of `anchor` `(1, 3, h', w')`.

    `strength` 0 leaves the frames alone, 1 matches fully; between, the pixels are mixed. A channel without contrast
    in a frame only takes the mean. Values are clipped to 0 to 1. Raises ValueError for another strength.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"The colour strength is a number from 0 to 1, but {strength} was given.")
    if strength == 0:
        return frames
    goal = _statistics(rgb_to_lab(anchor))
    return torch.cat([_matched(part, *goal, strength) for part in frames.split(_AT_ONCE)])


def _matched(frames: Tensor, goal_mean: Tensor, goal_deviation: Tensor, strength: float) -> Tensor:
    lab = rgb_to_lab(frames)
    mean, deviation = _statistics(lab)
    gain = torch.where(
        deviation > _FLAT, goal_deviation / deviation.clamp(min=_FLAT), torch.ones_like(deviation)
    )
    return torch.lerp(frames, lab_to_rgb((lab - mean) * gain + goal_mean, clip=True), strength)


def _statistics(lab: Tensor) -> tuple[Tensor, Tensor]:
    mean = reduce(lab, "f c h w -> f c 1 1", "mean")
    return mean, reduce((lab - mean) ** 2, "f c h w -> f c 1 1", "mean").sqrt()
