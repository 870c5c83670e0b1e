"""The mini text-to-image model without ComfyUI, sampled as the mini workflows ask: many steps, guidance 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.config import ModelSpec
from microcinema_core.diffusion.ddim import classifier_free_guidance, ddim
from microcinema_core.diffusion.schedule import Denoiser, NoiseSchedule, denoiser
from microcinema_core.files.checkpoint import load_strict, read_checkpoint
from microcinema_core.networks.unet import UNet3D

from ..world.pictures import PICTURE_SIZE
from .mini_pipeline import MiniPipeline, slices

STEPS, GUIDANCE = 30, 4.0
"""The image model's settings in the shipped workflows, which sample with dpmpp_2m; DDIM needs as many steps."""
BATCH = 25


@dataclass
class ImageModel:
    """A 2D U-Net with the text encoder and VAE of its file."""

    unet: UNet3D
    spec: ModelSpec
    pipeline: MiniPipeline

    @classmethod
    def read(cls, file: Path, pipeline: MiniPipeline, *, dtype: torch.dtype) -> ImageModel:
        """Load the U-Net of a file of role image; `pipeline` has the other networks of that file."""
        checkpoint = read_checkpoint(file, expect_roles=("image",))
        unet = UNet3D(checkpoint.config("unet"))
        load_strict(unet, checkpoint.part("unet"), f"the U-Net of {checkpoint.name}")
        return cls(unet.eval().requires_grad_(False).to(dtype), checkpoint.spec, pipeline)

    @torch.no_grad()
    def sample(
        self, texts: Sequence[str], *, seed: int, steps: int = STEPS, guidance: float = GUIDANCE
    ) -> Tensor:
        """Draw a picture for each text, `n 3 s s` in [-1, 1], by DDIM; each picture has noise of its own."""
        config = self.pipeline.vae.config
        side = PICTURE_SIZE // config.downscale
        shape = (len(texts), config.latent_channels, side, side)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        schedule = NoiseSchedule.from_spec(self.spec)
        empty = self.pipeline.encode_text([""])
        made = []
        for part in slices(len(texts), BATCH):
            with_text = self._denoiser(self.pipeline.encode_text(texts[part]), schedule)
            without = self._denoiser(empty.expand(part.stop - part.start, -1, -1), schedule)
            denoise = classifier_free_guidance(with_text, without, guidance)
            latents = ddim(denoise, noise[part], steps=steps, schedule=schedule)
            made.append(self.pipeline.decode(latents[:, None])[:, 0])
        return torch.cat(made)

    def _denoiser(self, context: Tensor, schedule: NoiseSchedule) -> Denoiser:
        dtype = next(self.unet.parameters()).dtype

        def network(x: Tensor, timesteps: Tensor) -> Tensor:
            return self.unet(x.to(dtype), timesteps, context.to(dtype)).float()

        return denoiser(network, schedule, self.spec.prediction)
