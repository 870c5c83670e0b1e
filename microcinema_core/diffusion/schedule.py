"""Stable Diffusion's noise schedule, and conversion between a network's output (eps or v) and z_0.

Sampling uses the variance-exploding form of ComfyUI's samplers, x = z_0 + sigma * eps. Training uses the
variance-preserving form of Eq. 4, z_t = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) eps. The two differ by the factor
sqrt(1 + sigma^2) = 1 / sqrt(alpha_bar).

Some weights were trained on clean latents scaled by s_t (`latent_scales`): z_t = sqrt(alpha_bar) s_t z_0 + ... Then
x = z_0 + sigma * eps with sigma = sqrt((1 - alpha_bar) / alpha_bar) / s_t, and the network sees s_t x.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..config import Betas, Prediction
from ..model_spec import ModelSpec

ALMOST_ZERO = 4.8973451890853435e-08
"""The last alpha_bar under zero terminal SNR, as in ComfyUI (comfy/model_sampling.py); sigma stays finite."""


def alphas_cumprod(
    steps: int = 1000,
    linear_start: float = 0.00085,
    linear_end: float = 0.0120,
    betas: Betas = "scaled_linear",
) -> Tensor:
    """Return alpha_bar_t for t = 0 .. steps - 1, float64.

    Args:
        steps: length of the schedule.
        linear_start, linear_end: the first and last beta.
        betas: "scaled_linear" squares a linear ramp of square roots (Stable Diffusion); "linear" is a linear ramp.
    """
    power = 2 if betas == "scaled_linear" else 1
    ramp = torch.linspace(linear_start ** (1 / power), linear_end ** (1 / power), steps, dtype=torch.float64)
    return torch.cumprod(1.0 - ramp**power, dim=0)


def zero_terminal(alpha_bar: Tensor) -> Tensor:
    """Rescale a schedule to zero terminal SNR (Lin et al. 2023, algorithm 1).

    sqrt(alpha_bar) is shifted and stretched so that its first value stays and its last becomes zero.
    """
    root = alpha_bar.sqrt()
    answer = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    answer[-1] = ALMOST_ZERO
    return answer


def latent_scales(rescale: float, steps: int = 1000, turning_step: int = 400) -> Tensor:
    """Return the factor s_t on clean latents for t = 0 .. steps - 1, float64: a line from 1 to `rescale`, then that.

    Source: "dynamic rescale" of DynamiCrafter (Xing et al. 2023; lvdm/models/ddpm3d.py of Doubiiu/DynamiCrafter).
    """
    scales = torch.full((steps,), rescale, dtype=torch.float64)
    scales[:turning_step] = torch.linspace(1.0, rescale, turning_step, dtype=torch.float64)[:steps]
    return scales


def diffuse(z_0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return z_t of Eq. 4 at noise eps; alpha_bar broadcasts against z_0."""
    return alpha_bar.sqrt() * z_0 + (1.0 - alpha_bar).sqrt() * eps


def training_target(z_0: Tensor, eps: Tensor, alpha_bar: Tensor, prediction: Prediction) -> Tensor:
    """Return the training target: eps (Eq. 5), or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z_0."""
    if prediction == "eps":
        return eps
    return alpha_bar.sqrt() * eps - (1.0 - alpha_bar).sqrt() * z_0


def denoised_from_output(output: Tensor, x: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """Return the estimate of z_0 that a network's output at x = z_0 + sigma * eps implies."""
    if prediction == "eps":
        return x - sigma * output
    return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1).sqrt()


class NoiseSchedule:
    """The noise levels of a schedule.

    Attributes:
        alpha_bar: alpha_bar_t for t = 0 .. steps - 1.
        scales: factor on clean latents s_t, float32; None for 1.
        sigmas: sigma_t, float32.
    """

    def __init__(self, alpha_bar: Tensor | None = None, scales: Tensor | None = None) -> None:
        self.alpha_bar = alphas_cumprod() if alpha_bar is None else alpha_bar
        self.scales = None if scales is None else scales.float()
        sigmas = ((1 - self.alpha_bar) / self.alpha_bar).sqrt()
        self.sigmas = (sigmas if scales is None else sigmas / scales).float()

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> NoiseSchedule:
        """Return the schedule that a model's weights were trained with."""
        alpha_bar = alphas_cumprod(betas=spec.betas)
        scales = None if spec.rescale == 1 else latent_scales(spec.rescale)
        return cls(zero_terminal(alpha_bar) if spec.zero_terminal_snr else alpha_bar, scales)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return fractional timesteps in the shape of sigma, interpolated linearly in log sigma as in ComfyUI."""
        log_sigmas = self.sigmas.log().to(sigma.device)
        log_sigma = sigma.log().clamp(log_sigmas[0], log_sigmas[-1])
        high = torch.searchsorted(log_sigmas, log_sigma.contiguous()).clamp(1, len(log_sigmas) - 1)
        low = high - 1
        weight = (log_sigma - log_sigmas[low]) / (log_sigmas[high] - log_sigmas[low])
        return low + weight

    def scale(self, timesteps: Tensor) -> Tensor | float:
        """Return the factor s_t at fractional timesteps, between two steps by a line; 1 where there is none."""
        if self.scales is None:
            return 1.0
        scales = self.scales.to(timesteps.device)
        low = timesteps.floor().long().clamp(0, len(scales) - 1)
        high = (low + 1).clamp(max=len(scales) - 1)
        return torch.lerp(scales[low], scales[high], (timesteps - low).to(scales))

    def sampling_sigmas(self, steps: int) -> Tensor:
        """Return (steps + 1,) falling sigmas, evenly spaced in t, with a final 0 (ComfyUI's `normal`).

        Raises:
            ValueError: fewer than one step.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}; sampling needs at least 1.")
        t = torch.linspace(len(self.sigmas) - 1, 0, steps).round().long()
        return torch.cat([self.sigmas[t], self.sigmas.new_zeros(1)])


Denoiser = Callable[[Tensor, Tensor], Tensor]
"""A function of x, `(b f) c h w` or another shape, and a scalar tensor sigma, to the estimate of z_0."""


def denoiser(
    network: Callable[[Tensor, Tensor], Tensor], schedule: NoiseSchedule, prediction: Prediction = "eps"
) -> Denoiser:
    """Turn a network into a denoiser of x = z_0 + sigma * eps.

    Args:
        network: maps z_t and a timestep per row to its prediction.
        schedule: the noise schedule that it was trained with.
        prediction: what it predicts.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        t = schedule.timestep(sigma)
        scale = schedule.scale(t)
        x, sigma = x * scale, sigma * scale
        timesteps = (
            t.expand(x.shape[0])
            if t.device == x.device
            else torch.full(x.shape[:1], float(t), device=x.device)
        )
        output = network(x / (sigma**2 + 1).sqrt(), timesteps)
        return denoised_from_output(output.float(), x, sigma, prediction) / scale

    return denoise
