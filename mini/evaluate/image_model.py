"""Pictures by the mini text-to-image model without ComfyUI, as the mini workflows ask: many steps, guidance 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from microcinema_core.diffusion.image_model import ImageModel

from ..world.pictures import PICTURE_SIZE
from .mini_pipeline import MiniPipeline, slices

STEPS, GUIDANCE = 30, 4.0
"""The image model's settings in the shipped workflows, which sample with dpmpp_2m; DDIM needs as many steps."""
BATCH = 25


@torch.no_grad()
def draw_pictures(
    model: ImageModel,
    pipeline: MiniPipeline,
    texts: Sequence[str],
    *,
    seed: int,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Draw a picture for each text, `n 3 s s` in [-1, 1]; each has noise of its own.

    Args:
        model, pipeline: the U-Net, and the text encoder and VAE of its file.
        texts: the prompts.
        seed: of the noise.
        steps, guidance: DDIM steps and classifier-free guidance.
    """
    config = pipeline.vae.config
    side = PICTURE_SIZE // config.downscale
    shape = (len(texts), config.latent_channels, side, side)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    empty, made = pipeline.encode_text([""]), []
    for part in slices(len(texts), BATCH):
        context = pipeline.encode_text(texts[part])
        latents = model.sample(context, empty, noise[part], steps=steps, guidance_scale=guidance)
        made.append(pipeline.decode(latents[:, None])[:, 0])
    return torch.cat(made)
