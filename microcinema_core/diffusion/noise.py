"""Appearance Noise Prior (section 3.3): a share of the centre frame in the noise.

Training adds eps = lambda * z_c + eps_n (Eq. 3), so x = z_0 + sigma * eps_n + sigma * lambda * z_c. Let
y = x - sigma * lambda * z_c. Then a model trained with the prior is an ordinary denoiser of y under plain noise:
evaluate it at y + sigma * lambda * z_c and let any sampler run on y. ODE solvers agree with the direct form to
rounding. Ancestral and SDE samplers, whose fresh noise has no share of z_c, are correct only in this form.
"""

from __future__ import annotations

from torch import Tensor

from .schedule import Denoiser

LAMBDA = 0.03
"""Share of z_c in the training noise, best in the paper's Fig. 6; a property of the weights."""
GAMMA = 0.02
"""Additional share of z_c in the starting noise, best in Fig. 6; a setting of the sampler."""


def training_noise(eps_n: Tensor, z_c: Tensor, lambda_: float | Tensor) -> Tensor:
    """Return Eq. 3's noise, eps^i = lambda z^c + eps_n^i, in the shape of eps_n.

    z_c broadcasts over the frames; a tensor lambda_ sets one value per clip.
    """
    return eps_n + lambda_ * z_c


def shift(y: Tensor, z_c: Tensor, sigma: Tensor | float, lambda_: float | Tensor) -> Tensor:
    """Return x = y + sigma lambda z_c, where a network trained with the prior is evaluated; use float32."""
    return y + sigma * lambda_ * z_c


def with_prior(denoise: Denoiser, z_c: Tensor, lambda_: float | Tensor) -> Denoiser:
    """Return the denoiser of y from a denoiser of x that was trained with the prior.

    The shifted x is used twice, as the network's input and to turn its output into z_0. A lambda_ of 0.0 returns
    `denoise` itself.
    """
    if isinstance(lambda_, float) and not lambda_:
        return denoise

    def denoise_y(y: Tensor, sigma: Tensor) -> Tensor:
        return denoise(shift(y, z_c, sigma, lambda_), sigma)

    return denoise_y


def from_residual(denoise: Denoiser, z_c: Tensor, scale: float) -> Denoiser:
    """Return a denoiser of frames from one that was trained on (z_0 - z_c) / scale.

    With y = z_0 + sigma eps, (y - z_c) / scale is that residual at noise sigma / scale. This is not from the paper:
    it makes static content correct before any training. A scale of 0 returns `denoise`, which denoises frames
    already.
    """
    if not scale:
        return denoise

    def denoise_y(y: Tensor, sigma: Tensor) -> Tensor:
        return z_c + scale * denoise((y - z_c) / scale, sigma / scale)

    return denoise_y


def starting_noise(eps_n: Tensor, z_c: Tensor, gamma: float, mask: Tensor | float = 1.0) -> Tensor:
    """Return the unit noise a sampler of y starts from: eps_n + gamma z_c (section 4.2.2).

    The paper's lambda z_c is not added here, as `shift` adds it. The mask is 1 on frames to generate and 0 on known
    frames, because the host reuses the noise there. At full noise ComfyUI starts from sqrt(1 + sigma_max^2) * noise.
    So gamma = 1 / sqrt(1 + sigma_max^2), 0.068 for Stable Diffusion's schedule, would restore the whole mean of a
    video near z_c.
    """
    if gamma == 0:
        return eps_n
    return eps_n + gamma * z_c * mask
