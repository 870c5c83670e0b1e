"""Pictures of latents for sheets: by the Stable Diffusion VAE of a file, or by no autoencoder at all."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.videos.stable_diffusion import decoded, holds_decoder, load_decoder

logger = logging.getLogger(__name__)
AT_ONCE = 4
"""Pictures that the VAE decodes at once: at 320x320 about 1 GB of activations."""


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


class VAEPreview(nn.Module):
    """True pictures by a checkpoint's own VAE, which is read when they are wanted and dropped after."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def decode(self, z: Tensor) -> Tensor:
        """`n c h w` -> pictures (n, 3, 8h, 8w) in about [-1, 1]."""
        vae = load_decoder(self.path).to(z.device)
        return torch.cat([decoded(vae, part.float()) for part in z.split(AT_ONCE)])


def preview_of(path: Path) -> LinearPreview | VAEPreview:
    """By the VAE of a Stable Diffusion file or folder; without one, or without diffusers, the linear preview."""
    if not holds_decoder(path):
        logger.info("%s holds no VAE: sheets are linear previews, with colours of their own", path.name)
        return LinearPreview()
    if find_spec("diffusers") is None:
        logger.info("sheets are linear previews: for %s's own VAE, pip install diffusers", path.name)
        return LinearPreview()
    return VAEPreview(path)
