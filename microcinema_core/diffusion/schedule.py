"""Stable Diffusion's noise schedule, and the three ways a network may state its answer.

Sampling runs in the variance-exploding picture that ComfyUI's samplers use, x = z_0 + sigma * eps; training in the
variance-preserving one of eq. 4, z_t = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) eps. They differ by the factor
sqrt(1 + sigma^2) = 1 / sqrt(alpha_bar).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["eps", "v"]
Terminal = Literal["sd", "zero"]
"""How much signal the noisiest step holds: SD's schedule leaves 0.068 z_0; "zero" leaves none (Lin et al. 2023)."""
ALMOST_ZERO = 4.8973451890853435e-08
"""alpha_bar of that step in the host (comfy/model_sampling.py), so that sigma stays finite."""


def alphas_cumprod(steps: int = 1000, linear_start: float = 0.00085, linear_end: float = 0.0120) -> Tensor:
    """alpha_bar_t of SD's "scaled linear" schedule, (steps,) float64: betas are squares of a linear ramp."""
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def zero_terminal(alpha_bar: Tensor) -> Tensor:
    """The same schedule, its sqrt(alpha_bar) shifted and stretched to end at zero (Lin et al. 2023, algorithm 1)."""
    root = alpha_bar.sqrt()
    answer = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    answer[-1] = ALMOST_ZERO
    return answer


def diffuse(z_0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Eq. 4. alpha_bar broadcasts against z_0."""
    return alpha_bar.sqrt() * z_0 + (1.0 - alpha_bar).sqrt() * eps


def training_target(z_0: Tensor, eps: Tensor, alpha_bar: Tensor, prediction: Prediction) -> Tensor:
    """What the network is asked for: eps (eq. 5), or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z_0."""
    if prediction == "eps":
        return eps
    return alpha_bar.sqrt() * eps - (1.0 - alpha_bar).sqrt() * z_0


def denoised_from_output(output: Tensor, x: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The estimate of z_0 that the network's answer at x = z_0 + sigma * eps implies."""
    if prediction == "eps":
        return x - sigma * output
    return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1).sqrt()


class NoiseSchedule:
    """sigma_t for t = 0 .. steps - 1, and the fractional t of any sigma (linear in log sigma, as the host has it)."""

    def __init__(self, alpha_bar: Tensor | None = None) -> None:
        self.alpha_bar = alphas_cumprod() if alpha_bar is None else alpha_bar
        self.sigmas = ((1 - self.alpha_bar) / self.alpha_bar).sqrt().float()

    @classmethod
    def ending(cls, terminal: Terminal) -> NoiseSchedule:
        """SD's schedule, or the one that ends in pure noise."""
        return cls(zero_terminal(alphas_cumprod()) if terminal == "zero" else None)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Fractional timesteps, same shape as sigma."""
        log_sigmas = self.sigmas.log().to(sigma.device)
        log_sigma = sigma.log().clamp(log_sigmas[0], log_sigmas[-1])
        high = torch.searchsorted(log_sigmas, log_sigma.contiguous()).clamp(1, len(log_sigmas) - 1)
        low = high - 1
        weight = (log_sigma - log_sigmas[low]) / (log_sigmas[high] - log_sigmas[low])
        return low + weight

    def sampling_sigmas(self, steps: int) -> Tensor:
        """(steps + 1,) falling sigmas, evenly spaced in t from the noisiest step to the cleanest, with a final 0.

        The host's scheduler `normal`.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}; sampling needs at least 1.")
        t = torch.linspace(len(self.sigmas) - 1, 0, steps).round().long()
        return torch.cat([self.sigmas[t], self.sigmas.new_zeros(1)])


Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x, sigma) -> the estimate of z_0; x and result `(b f) c h w`, sigma a scalar tensor."""


def denoiser(
    network: Callable[[Tensor, Tensor], Tensor], schedule: NoiseSchedule, prediction: Prediction = "eps"
) -> Denoiser:
    """A network of (scaled input, timestep per row) as a denoiser of x = z_0 + sigma * eps."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        timesteps = schedule.timestep(sigma).expand(x.shape[0]).to(x.device)
        output = network(x / (sigma**2 + 1).sqrt(), timesteps)
        return denoised_from_output(output.float(), x, sigma, prediction)

    return denoise
