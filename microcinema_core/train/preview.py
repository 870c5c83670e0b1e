"""Pictures of latents for sample sheets: by a Stable Diffusion VAE, or as a linear preview."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.videos.stable_diffusion import decode_latents, has_decoder, load_decoder
from ..messages import one_line

logger = logging.getLogger(__name__)
DECODE_BATCH = 4
"""Pictures that the VAE decodes at once; at 320x320 that takes about 1 GB of activations."""


class LinearPreview(nn.Module):
    """The first three principal components of a batch of latents, as red, green and blue.

    Shapes and motion are true; colours are not, and differ between batches.
    """

    def decode(self, z: Tensor) -> Tensor:
        """Map latents `n c h w` to pictures `n 3 8h 8w` in [-1, 1]."""
        rows = z.float().movedim(1, -1).flatten(0, -2)
        centred = rows - rows.mean(0)
        _, directions = torch.linalg.eigh(centred.T @ centred)
        colours = centred @ directions[:, -3:]
        spread = 2 * colours.std(dim=0).clamp(min=1e-6)
        pictures = (colours / spread).clamp(-1, 1).view(z.shape[0], *z.shape[2:], 3).movedim(-1, 1)
        return F.interpolate(pictures, scale_factor=8, mode="nearest")


class VAEPreview(nn.Module):
    """The decoder of a Stable Diffusion file or folder, read for each call and released after it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents `n c h w` to pictures `n 3 8h 8w`, nominally in [-1, 1]."""
        vae = load_decoder(self.path).to(z.device)
        return torch.cat([decode_latents(vae, part.float()) for part in z.split(DECODE_BATCH)])


def make_preview(path: Path) -> LinearPreview | VAEPreview:
    """Return the VAE of a Stable Diffusion file or folder, or a linear preview without VAE or diffusers."""
    if not has_decoder(path):
        logger.info(
            "%s holds no VAE: sample sheets are linear previews without true colours", one_line(path.name)
        )
        return LinearPreview()
    if find_spec("diffusers") is None:
        logger.info(
            "sample sheets are linear previews: to decode with %s's VAE, pip install diffusers",
            one_line(path.name),
        )
        return LinearPreview()
    return VAEPreview(path)
