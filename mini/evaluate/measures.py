"""What is measured on pictures in [-1, 1]: looks, colours of the object, its direction's evidence, joins.

The object of a clip, real or made, is where a frame differs from the clip's background, which is known and still.
"""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor

from microcinema_core.metrics.psnr import psnr

DIFFERS = 0.2
"""A pixel belongs to the object if its colour is so far from the background's (mean over channels, of 2)."""
BINS = 6
BOX_ALPHA = 0.05


def object_masks(clips: Tensor, backgrounds: Tensor) -> Tensor:
    """`n f c h w` and `n c h w` -> bool `n f h w`."""
    far = reduce((clips - backgrounds[:, None]).abs(), "n f c h w -> n f h w", "mean")
    return far > DIFFERS


def box_psnr(pictures: Tensor, real: Tensor, silhouettes: Tensor) -> Tensor:
    """PSNR in dB of each picture `n c h w` within its object's box, (n,)."""
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
    """Of the object in each frame: `n f BINS^3`, sums 1; pixels share their weight between neighbouring bins."""
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


def colour_drift(clips: Tensor, backgrounds: Tensor) -> Tensor:
    """Hellinger distance of the object's colours in each frame from those in the centre frame, mean by clip, (n,)."""
    roots = colour_histograms(clips, object_masks(clips, backgrounds)).sqrt()
    centre = clips.shape[1] // 2
    distance = (1 - (roots * roots[:, centre : centre + 1]).sum(2)).clamp(min=0).sqrt()
    others = [i for i in range(clips.shape[1]) if i != centre]
    return distance[:, others].mean(1)


def join_ratio(clips: Tensor, factor: int) -> Tensor:
    """Mean frame difference next to the given frames (every factor-th) over that between made ones, by clip, (n,)."""
    steps = reduce(clips.diff(dim=1).abs(), "n f c h w -> n f", "mean")
    within = rearrange(steps, "n (p k) -> n p k", k=factor)
    return within[:, :, (0, -1)].mean((1, 2)) / within[:, :, 1:-1].mean((1, 2)).clamp(min=1e-6)
