"""Colour drift of a video against an anchor picture: measuring it and correcting it.

A video keeps the colours of its centre frame (section 3.1), but decoders and long chains of clips drift away from
them. Colours are compared in CIE L*a*b*, where a distance of about 2.3 is just noticeable (Mahy et al., 1994). They
are matched there by mean and standard deviation (Reinhard et al., "Color Transfer between Images", 2001).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import reduce
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

_BATCH = 16
"""Frames converted at once, so that a long video is never held whole in both colour spaces."""
_MIN_DEVIATION = 0.5
"""Standard deviation in L*a*b* below which a channel has no contrast to scale."""
_MEASURED_SIDE = 64
"""Side in pixels that is enough to measure a mean colour."""


def colour_drift(frames: Tensor, anchor: Tensor) -> Tensor:
    """Return the L*a*b* distance `f` of each frame's mean colour from the anchor's.

    Args:
        frames: RGB `f 3 h w` in [0, 1].
        anchor: RGB `1 3 h' w'` in [0, 1].
    """
    means = torch.cat([_mean_colour(part) for part in frames.split(_BATCH)])
    return (means - _mean_colour(anchor)).norm(dim=1)


def _mean_colour(frames: Tensor) -> Tensor:
    height, width = (min(side, _MEASURED_SIDE) for side in frames.shape[-2:])
    return reduce(rgb_to_lab(F.adaptive_avg_pool2d(frames, (height, width))), "f c h w -> f c", "mean")


def match_colours(frames: Tensor, anchor: Tensor, *, strength: float) -> Tensor:
    """Give each frame the anchor's mean and standard deviation in L*a*b*; the result is clamped to [0, 1].

    Args:
        frames: RGB `f 3 h w` in [0, 1]. A channel without contrast only takes the anchor's mean.
        anchor: RGB `1 3 h' w'` in [0, 1].
        strength: share of the matched pixels in the result, from 0 (unchanged) to 1.

    Raises:
        ValueError: a strength outside of [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"colour_strength must be a number from 0 to 1, but {strength} was given.")
    if strength == 0:
        return frames
    target = _statistics(rgb_to_lab(anchor))
    return torch.cat([_matched(part, *target, strength) for part in frames.split(_BATCH)])


def _matched(frames: Tensor, target_mean: Tensor, target_deviation: Tensor, strength: float) -> Tensor:
    lab = rgb_to_lab(frames)
    mean, deviation = _statistics(lab)
    gain = torch.where(
        deviation > _MIN_DEVIATION,
        target_deviation / deviation.clamp(min=_MIN_DEVIATION),
        torch.ones_like(deviation),
    )
    return torch.lerp(frames, lab_to_rgb((lab - mean) * gain + target_mean, clip=True), strength)


def _statistics(lab: Tensor) -> tuple[Tensor, Tensor]:
    mean = reduce(lab, "f c h w -> f c 1 1", "mean")
    return mean, reduce((lab - mean) ** 2, "f c h w -> f c 1 1", "mean").sqrt()
