"""A standalone DDIM sampler, so that training can look at its own samples without ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .schedule import Denoiser, NoiseSchedule


def guided(conditional: Denoiser, unconditional: Denoiser | None, guidance_scale: float) -> Denoiser:
    """Classifier-free guidance on the denoised estimates; a scale of 1 asks the conditional branch alone."""
    if unconditional is None or guidance_scale == 1.0:
        return conditional

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        without = unconditional(x, sigma)
        return without + guidance_scale * (conditional(x, sigma) - without)

    return denoise


@dataclass(frozen=True)
class Given:
    """Latents of a clip that is partly given: `mask` is 0 on the given frames and 1 where frames are to be made."""

    latents: Tensor
    mask: Tensor


def keeping(denoise: Denoiser, given: Given, noise: Tensor) -> Denoiser:
    """A denoiser that sees the given frames at each noise level, and answers them themselves (as the host masks)."""

    def denoise_rest(x: Tensor, sigma: Tensor) -> Tensor:
        known = given.latents + sigma * noise
        answer = denoise(torch.lerp(known, x, given.mask), sigma)
        return torch.lerp(given.latents, answer, given.mask)

    return denoise_rest


def ddim_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Iterator[Tensor]:
    """Deterministic DDIM (eta = 0), which in x = z_0 + sigma * eps is Euler's method. Yields x after each step."""
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
    """Samples z_0 `(b f) c h w` from unit noise of that shape.

    The start is sqrt(1 + sigma_max^2) * noise, the scale at which the host starts too. Raises ValueError for
    steps < 1.
    """
    sigmas = (schedule or NoiseSchedule()).sampling_sigmas(steps).to(noise.device)
    x = noise * (1 + sigmas[0] ** 2).sqrt()
    *_, z_0 = ddim_steps(denoise, x, sigmas)
    return z_0
