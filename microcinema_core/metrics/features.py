"""What I3D sees in videos: its logits, which FVD and its relatives compare."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor

from .i3d import I3D


@torch.no_grad()
def i3d_features(model: I3D, clips: Iterable[Tensor] | Tensor, batch: int = 4) -> Tensor:
    """Features (n, 400), float32 on the CPU, of clips (f, 3, h, w) of one shape in [-1, 1], or of (n, f, 3, h, w).

    Clips are taken `batch` at a time, so that an iterator need not hold them all.

    Raises:
        ValueError: there are no clips, or they are not what `I3D` takes.
    """
    device = next(model.parameters()).device
    source = iter(clips)
    rows = []
    while taken := list(islice(source, batch)):
        rows.append(model(torch.stack(taken).to(device)).float().cpu())
    if not rows:
        raise ValueError("there are no clips to take features of")
    return torch.cat(rows)
