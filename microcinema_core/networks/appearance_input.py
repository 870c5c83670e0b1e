"""AppearNet's input: the appearance latents, and the channel that tells it which frames are given.

The Appearance Noise Prior always takes the line between the given frames (`z_c`); AppearNet sees what its weights were
trained on (`AppearNetConfig.between` and `hint`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from ..config import AFFINITIES, MOTIONS, AppearNetConfig, Motion, centre_index
from ..values import chosen
from .appearnet import interpolated_appearance

Anchor = Literal["centre", "first", "last"]
"""Where a picture stands in the video."""
ANCHORS: tuple[Anchor, ...] = get_args(Anchor)


def anchor_index(anchor: Anchor, frames: int) -> int:
    """Return the index of the frame whose picture is given, in a video of this many frames."""
    return {"centre": centre_index(frames), "first": 0, "last": frames - 1}[anchor]


def line_between(pictures: Tensor, given: Sequence[int], frames: int) -> Tensor:
    """Return appearance latents `f c h w`: a line between the given frames, and the nearest of them outside.

    Args:
        pictures: latents of the given frames, `k c h w`; they come back unaltered.
        given: their indices, rising. Of two pictures for one frame the later one stands there.
        frames: frames of the video, f.
    """
    parts = [pictures[:1].expand(given[0], -1, -1, -1)]
    for index, (start, end) in enumerate(pairwise(given)):
        first, last = pictures[index : index + 1], pictures[index + 1 : index + 2]
        if end > start:
            parts.append(interpolated_appearance(first, last, end - start + 1)[:-1])
    parts.append(pictures[-1:].expand(frames - given[-1], -1, -1, -1))
    return torch.cat(parts)


def appearnet_input(
    z_c: Tensor,
    given: Sequence[int],
    config: AppearNetConfig,
    *,
    frames: int,
    motion: Motion = "medium",
) -> Tensor:
    """Return AppearNet's input `(b f) c h w`, where c includes the hint's channel.

    Args:
        z_c: appearance latents `(b f) c h w`: the given frames and the line between them.
        given: indices of a video's given frames, the same for all videos.
        config: what the weights take.
        frames: frames per video, f.
        motion: how fast the affinity falls, where the weights take one.

    Raises:
        ValueError: no given frame, an index outside the video, or an unknown `motion`.
    """
    if not given or min(given) < 0 or max(given) >= frames:
        raise ValueError(
            f"the given frames are {list(given)} of a video of {frames}; "
            f"give at least one index from 0 to {frames - 1}."
        )
    hint = _hint(given, config, frames, motion).to(z_c)
    seen = z_c
    if config.between == "zeros":
        is_given = torch.zeros(frames, 1, 1, 1).index_fill_(0, torch.tensor(list(given)), 1.0)
        seen = (z_c.unflatten(0, (-1, frames)) * is_given.to(z_c)).flatten(0, 1)
    if config.hint == "none":
        return seen
    videos = z_c.shape[0] // frames
    channel = hint.repeat(videos)[:, None, None, None].expand(-1, 1, *z_c.shape[-2:])
    return torch.cat([seen, channel], dim=1)


def _hint(given: Sequence[int], config: AppearNetConfig, frames: int, motion: Motion) -> Tensor:
    """Return the hint of each frame `(f,)`."""
    chosen(motion, MOTIONS, "motion")
    distance = [min(abs(frame - index) for index in given) for frame in range(frames)]
    if config.hint == "given":
        return torch.tensor([float(d == 0) for d in distance])
    table = AFFINITIES[motion]
    return torch.tensor([table[min(d, len(table) - 1)] for d in distance])
