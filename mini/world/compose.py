"""Place premultiplied sprites in a picture: exact, antialiased, at sub-pixel positions.

A placement is a centre and a side, without rotation, so resampling is separable. Each frame takes one small weight
matrix for its rows and one for its columns, applied by two batched products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -1/2 (interpolating; support 2)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def placement_weights(
    centre: Tensor, side: Tensor, *, source: int, target: int, smallest: float | None = None
) -> Tensor:
    """Return the resampling matrices (frames, target, source) of one axis.

    Beyond the sprite everything is transparent. Shrinking widens the kernel, so the result is antialiased.

    Args:
        centre: position of the sprite's middle in each frame, (frames,), in target pixels.
        side: length of the sprite's edge in each frame, (frames,), in target pixels.
        source: pixels along the edge of the sprite.
        target: pixels along the edge of the picture.
        smallest: no side is shorter; None takes the shortest one, which a GPU has to be waited for.
    """
    device, ratio = centre.device, source / side.double()
    width = ratio.clamp(min=1.0)
    margin = math.ceil(4 * (float(width.max()) if smallest is None else max(1.0, source / smallest)))
    pixels = torch.arange(target, dtype=torch.float64, device=device) + 0.5
    wanted = (pixels - (centre.double() - side.double() / 2)[:, None]) * ratio[:, None]
    taps = torch.arange(-margin, source + margin, device=device) + 0.5
    weights = _cubic((wanted.float()[:, :, None] - taps) / width.float()[:, None, None])
    total = weights.sum(dim=2, keepdim=True)
    weights = weights / torch.where(total < 0.5, torch.ones_like(total), total)
    return weights[:, :, margin : margin + source]


def place(
    sprites: Tensor, centres: Tensor, sides: Tensor, *, size: int, smallest: float | None = None
) -> Tensor:
    """Place premultiplied sprites `f 4 s s` in [0, 1] in frames of `size`, and return `f 4 size size`.

    `centres` (f, 2) as (x, y), `sides` (f,) and `smallest`, which no side falls below, are fractions of the picture's
    edge; one placement may serve all frames.
    """
    least = None if smallest is None else smallest * size
    columns, rows = (
        placement_weights(
            centres[:, axis] * size, sides * size, source=sprites.shape[-1], target=size, smallest=least
        )
        for axis in (0, 1)
    )
    placed = rows[:, None] @ sprites @ columns[:, None].transpose(2, 3)
    colour = placed[:, :3] / placed[:, 3:].clamp(min=1)  # where the kernel overshoots, colours do not
    alpha = placed[:, 3:].clamp(0, 1)
    return torch.cat((colour.clamp(min=0).minimum(alpha), alpha), dim=1)


def over(placed: Tensor, background: Tensor) -> Tensor:
    """Composite premultiplied frames `f 4 h w` over a background `3 h w`, all in [0, 1]."""
    return placed[:, :3] + (1 - placed[:, 3:]) * background
