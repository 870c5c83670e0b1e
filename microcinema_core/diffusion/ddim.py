"""A standalone DDIM sampler (Song et al. 2021), so that training can sample without ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .schedule import Denoiser, NoiseSchedule


def classifier_free_guidance(
    conditional: Denoiser, unconditional: Denoiser | None, guidance_scale: float
) -> Denoiser:
    """Return a denoiser with classifier-free guidance on the estimates of z_0 (Ho and Salimans 2022).

    A scale of 1, or no unconditional branch, returns `conditional` itself.
    """
    if unconditional is None or guidance_scale == 1.0:
        return conditional

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        without = unconditional(x, sigma)
        return without + guidance_scale * (conditional(x, sigma) - without)

    return denoise


@dataclass(frozen=True)
class KnownFrames:
    """The frames of a clip that sampling must keep.

    Attributes:
        latents: clean latents in the sampler's shape; ignored where the mask is 1.
        mask: 0 on known frames, 1 on frames to generate; broadcasts against the latents.
    """

    latents: Tensor
    mask: Tensor


def inpaint(denoise: Denoiser, known: KnownFrames, noise: Tensor) -> Denoiser:
    """Return a denoiser that keeps the known frames, as the host's noise mask does.

    The network sees them at the current noise level, with this noise; the output holds their clean latents.
    """

    def denoise_rest(x: Tensor, sigma: Tensor) -> Tensor:
        noisy = known.latents + sigma * noise
        denoised = denoise(torch.lerp(noisy, x, known.mask), sigma)
        return torch.lerp(known.latents, denoised, known.mask)

    return denoise_rest


def ddim_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Iterator[Tensor]:
    """Yield x after each step of deterministic DDIM (eta = 0): Euler's method for x = z_0 + sigma * eps."""
    for sigma, next_sigma in pairwise(sigmas):
        denoised = denoise(x, sigma)
        x = denoised + (x - denoised) * (next_sigma / sigma)
        yield x


@torch.no_grad()
def ddim(
    denoise: Denoiser,
    noise: Tensor,
    *,
    steps: int = 20,
    schedule: NoiseSchedule | None = None,
) -> Tensor:
    """Sample z_0 from unit noise; the result has its shape, such as `(b f) c h w`.

    The start is sqrt(1 + sigma_max^2) * noise, as in the host. The schedule is Stable Diffusion's by default.

    Raises:
        ValueError: fewer than one step.
    """
    # They stay on the CPU: a GPU takes single numbers as they are, and reading them there would make it wait.
    sigmas = (schedule or NoiseSchedule()).sampling_sigmas(steps)
    x = noise * (1 + sigmas[0] ** 2).sqrt()
    *_, z_0 = ddim_steps(denoise, x, sigmas)
    return z_0
