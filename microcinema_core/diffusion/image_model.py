"""A text-to-image model that can sample pictures without ComfyUI, for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model_spec import ModelSpec
from ..networks.unet import UNet3D
from .ddim import classifier_free_guidance, ddim
from .schedule import Denoiser, NoiseSchedule, denoiser


@dataclass
class ImageModel:
    """A 2D U-Net with sampling.

    Attributes:
        unet: the network.
        spec: what it was trained for.
        schedule: the noise schedule of the spec.
    """

    unet: UNet3D
    spec: ModelSpec

    def __post_init__(self) -> None:
        self.schedule = NoiseSchedule.from_spec(self.spec)

    @torch.no_grad()
    def sample(
        self, text: Tensor, empty: Tensor, noise: Tensor, *, steps: int, guidance_scale: float
    ) -> Tensor:
        """Draw latents by DDIM.

        Args:
            text: encoded captions, `n l d`.
            empty: the encoded empty prompt, `1 l d`.
            noise: plain noise in the shape of the latents, `n c h w`.
            steps: DDIM steps.
            guidance_scale: classifier-free guidance; 1 turns it off.
        """
        with_text = self._denoiser(text)
        without = self._denoiser(empty.expand(len(text), -1, -1)) if guidance_scale != 1 else None
        denoise = classifier_free_guidance(with_text, without, guidance_scale)
        return ddim(denoise, noise.to(text.device), steps=steps, schedule=self.schedule)

    def _denoiser(self, context: Tensor) -> Denoiser:
        dtype = next(self.unet.parameters()).dtype

        def network(x: Tensor, timesteps: Tensor) -> Tensor:
            return self.unet(x.to(dtype), timesteps, context.to(dtype)).float()

        return denoiser(network, self.schedule, self.spec.prediction)
