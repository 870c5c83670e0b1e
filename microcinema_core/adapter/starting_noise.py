"""The share of the centre frame in the starting noise, gamma * z_c (section 4.2.2), on any MODEL of the host.

It needs no trained weights, so it also acts on models of other families. Their latents are `(b f) c h w` (Stable
Diffusion, SVD, AnimateDiff) or `b c f h w` (Wan, LTX, Hunyuan, Cosmos, Mochi). Models of rectified flow start at
sigma 1 from the noise alone, so from eps_n + gamma z_c; the others scale the sum by their own starting sigma.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..diffusion.noise import starting_noise
from .model import ATTACHMENT, Appearance

log = logging.getLogger(__name__)


LARGEST = 1e4
"""Largest value of latents that is taken for a picture's; those of real ones stay below 100."""
PACKED = (
    "models that make sound and video at once pack both into one: set gamma to 0, or leave "
    "MicroCinema Noise Prior out."
)


def checked_latent(latent: dict[str, Tensor], channels: int, what: str, *, video: bool = False) -> Tensor:
    """Return a LATENT's samples `f c h w` in float32.

    Args:
        latent: the LATENT.
        channels: number of channels that the model takes.
        what: the input's name for the message.
        video: whether the model's latents are `b c f h w`; then one video is taken as well.

    Raises:
        ValueError: no frames, several videos, another number of channels, or values that are not finite or larger
                than `LARGEST`.
    """
    samples = given = latent["samples"]
    expected = f"(frames, {channels}, height, width)"
    if video:
        expected = f"(1, {channels}, frames, height, width)"
        if samples.ndim == 5 and samples.shape[0] == 1:
            samples = rearrange(samples, "1 c f h w -> f c h w")
    if samples.ndim != 4 or not samples.numel() or samples.shape[1] != channels:
        raise ValueError(
            f"{what} has latents of shape {tuple(given.shape)}, {expected} was expected: encode the picture with the "
            "VAE of the model's own family."
        )
    if not bool(torch.isfinite(samples).all()):
        raise ValueError(
            f"{what} holds NaN or infinite values: look at the picture and the VAE that made it."
        )
    lowest, highest = torch.aminmax(samples)
    if (peak := max(-float(lowest), float(highest))) > LARGEST:
        raise ValueError(
            f"{what} holds values of up to {peak:g}, far beyond those of a picture: look at the VAE, and at what "
            "changed its latents."
        )
    return samples.detach().float()


def refuse_packed(latent_format: Any) -> None:
    """Refuse a family whose empty latent is sound and video at once (MiniMax H3 on newer hosts).

    Raises:
        ValueError: the host packs the latents of this family.
    """
    packed = getattr(latent_format, "fix_empty_latent", None)
    if packed and getattr(packed(torch.zeros(1, latent_format.latent_channels, 1, 1, 1)), "is_nested", False):
        raise ValueError(f"the noise prior needs frames of pictures; {PACKED}")


def add_gamma(
    executor: Any,
    guider: Any,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Any,
    noise: Tensor,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    disable_pbar: bool = False,
) -> Tensor:
    """Add gamma * z_c to the starting noise where sampling starts from noise alone; a wrapper of the host's sampler.

    Raises:
        ValueError: latents that are no frames, or a centre frame that does not fit them.
    """
    appearance: Appearance | None = guider.model_patcher.get_attachment(ATTACHMENT)
    mask = 1.0 if denoise_mask is None else denoise_mask
    if appearance is not None and appearance.gamma:
        noise_alone = latent_image is None or not bool((latent_image * mask).any())
        full_noise = executor.class_obj.max_denoise(guider, sigmas)
        if noise_alone and not full_noise:
            log.info(
                "MicroCinema: gamma %g is not applied, because sampling starts at sigma %.3f, below the maximum: for "
                "gamma, use the scheduler normal, simple or sgm_uniform.",
                appearance.gamma,
                float(sigmas[0]),
            )
        if noise_alone and full_noise and bool(noise.any()):
            z_c = _z_c_for(appearance, noise, guider.inner_model.process_latent_in)
            noise = starting_noise(noise, z_c, appearance.gamma, mask)
    return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)


def _z_c_for(appearance: Appearance, noise: Tensor, into_model_space: Any) -> Tensor:
    """Return z_c in model space, in a shape that broadcasts against the noise.

    Raises:
        ValueError: noise that is no batch of frames or videos, or another size than the centre frame's.
    """
    if noise.ndim == 5:
        frames = appearance.latent_for(rearrange(noise[:1], "1 c f h w -> f c h w"))
        return into_model_space(rearrange(frames, "f c h w -> 1 c f h w").to(noise))
    if noise.ndim != 4:
        raise ValueError(
            f"the latent image has shape {tuple(noise.shape)}, and the noise prior needs frames of pictures, (frames, "
            f"channels, height, width) or (videos, channels, frames, height, width); {PACKED}"
        )
    z_c = into_model_space(appearance.latent_for(noise).to(noise))
    return z_c.repeat(noise.shape[0] // z_c.shape[0], 1, 1, 1)
