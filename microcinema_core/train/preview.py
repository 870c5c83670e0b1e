"""Pictures of latents where no autoencoder is at hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearPreview(nn.Module):
    """The three directions in which a batch of latents varies most, as red, green and blue, each over its range.

    Colours are not the true ones, and differ between batches; shapes and motion are.
    """

    def decode(self, z: Tensor) -> Tensor:
        """`n c h w` -> pictures (n, 3, 8h, 8w) in [-1, 1]."""
        rows = z.float().movedim(1, -1).flatten(0, -2)
        centred = rows - rows.mean(0)
        _, directions = torch.linalg.eigh(centred.T @ centred)
        colours = centred @ directions[:, -3:]
        spread = 2 * colours.std(dim=0).clamp(min=1e-6)
        pictures = (colours / spread).clamp(-1, 1).view(z.shape[0], *z.shape[2:], 3).movedim(-1, 1)
        return F.interpolate(pictures, scale_factor=8, mode="nearest")
