"""Measures on clips `n f c h w` in [-1, 1]: the object's mask, PSNR in its box, drift of its colours, seams.

The object of a clip, real or sampled, is where a frame differs from the clip's background, which is known and static.
"""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor

from microcinema_core.config import centre_index
from microcinema_core.metrics.psnr import psnr

DIFFERS = 0.2
"""A pixel belongs to the object if its colour differs from the background's by more than this (mean over RGB, of 2)."""
BINS = 6
"""Histogram bins per colour channel."""
BOX_ALPHA = 0.05
"""The object's box spans the pixels with a larger alpha."""


def object_masks(clips: Tensor, backgrounds: Tensor) -> Tensor:
    """Return where the object is, bool `n f h w`, from clips `n f c h w` and their backgrounds `n c h w`."""
    difference = reduce((clips - backgrounds[:, None]).abs(), "n f c h w -> n f h w", "mean")
    return difference > DIFFERS


def box_psnr(pictures: Tensor, real: Tensor, silhouettes: Tensor) -> Tensor:
    """Return the PSNR in dB (n,) of pictures `n c h w` within the box around their objects.

    Args:
        pictures: the pictures to measure.
        real: the true pictures.
        silhouettes: alpha of the objects, `n h w` in [0, 1].
    """
    values = []
    for picture, truth, alpha in zip(pictures, real, silhouettes, strict=True):
        rows, columns = (alpha > BOX_ALPHA).any(1).nonzero(), (alpha > BOX_ALPHA).any(0).nonzero()
        box = (
            ...,
            slice(int(rows.min()), int(rows.max()) + 1),
            slice(int(columns.min()), int(columns.max()) + 1),
        )
        values.append(psnr(picture[box], truth[box]))
    return torch.stack(values)


def colour_histograms(clips: Tensor, masks: Tensor) -> Tensor:
    """Return RGB histograms of the object in each frame, `n f BINS^3`, each of sum 1.

    Pixels are shared between neighbouring bins by linear interpolation.
    """
    place = ((clips + 1) / 2).clamp(0, 1) * (BINS - 1)
    low = place.floor().clamp(max=BINS - 2)
    share = place - low
    n, f = clips.shape[:2]
    table = torch.zeros(n * f, BINS**3)
    weight = rearrange(masks.float(), "n f h w -> (n f) (h w)")
    for corner in range(8):
        index, part = torch.zeros_like(weight), weight
        for channel in range(3):
            up = corner >> channel & 1
            one = rearrange(low[:, :, channel], "n f h w -> (n f) (h w)") + up
            near = rearrange(share[:, :, channel], "n f h w -> (n f) (h w)")
            index = index * BINS + one
            part = part * (near if up else 1 - near)
        table.scatter_add_(1, index.long(), part)
    return rearrange(table / table.sum(1, keepdim=True).clamp(min=1e-6), "(n f) k -> n f k", n=n)


def histogram_drift(clips: Tensor, backgrounds: Tensor) -> Tensor:
    """Return how far the object's colours drift from the centre frame's, by clip (n,).

    This is the Hellinger distance of each other frame's colour histogram from the centre frame's, averaged.
    """
    roots = colour_histograms(clips, object_masks(clips, backgrounds)).sqrt()
    centre = centre_index(clips.shape[1])
    distance = (1 - (roots * roots[:, centre : centre + 1]).sum(2)).clamp(min=0).sqrt()
    others = [i for i in range(clips.shape[1]) if i != centre]
    return distance[:, others].mean(1)


def seam_ratio(clips: Tensor, factor: int) -> Tensor:
    """Return the mean frame difference at given frames, relative to that between generated ones, by clip (n,).

    Every `factor`-th frame is given. A ratio of 1 means that the given frames are not visible as seams.
    """
    steps = reduce(clips.diff(dim=1).abs(), "n f c h w -> n f", "mean")
    within = rearrange(steps, "n (p k) -> n p k", k=factor)
    return within[:, :, (0, -1)].mean((1, 2)) / within[:, :, 1:-1].mean((1, 2)).clamp(min=1e-6)
