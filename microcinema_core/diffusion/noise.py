"""Appearance Noise Prior (section 3.3): the centre frame as a part of the noise.

Training adds eps = lambda * z_c + eps_n (eq. 3), so x = z_0 + sigma * eps_n + sigma * lambda * z_c. With the change of
variables y = x - sigma * lambda * z_c, a model trained with the prior is an ordinary denoiser of y under plain noise:
evaluate it at y + sigma * lambda * z_c and let any sampler run on y. ODE solvers agree with the direct form to
rounding; ancestral and SDE samplers, whose fresh noise knows nothing of z_c, are right only in this form.
"""

from __future__ import annotations

from torch import Tensor

from .schedule import Denoiser

LAMBDA = 0.03
"""The coefficient that the paper's Fig. 6 found best in training; it belongs to the weights."""
GAMMA = 0.02
"""The extra share of z_c in the starting noise that Fig. 6 found best; it belongs to the user."""


def training_noise(eps_n: Tensor, z_c: Tensor, lambda_: float | Tensor) -> Tensor:
    """Eq. 3: eps^i = lambda z^c + eps_n^i. z_c broadcasts over frames; a tensor lambda_ gives each clip its own."""
    return eps_n + lambda_ * z_c


def shift(y: Tensor, z_c: Tensor, sigma: Tensor | float, lambda_: float | Tensor) -> Tensor:
    """x = y + sigma lambda z_c: where the network that was trained with the prior is evaluated. Call it in float32."""
    return y + sigma * lambda_ * z_c


def with_prior(denoise: Denoiser, z_c: Tensor, lambda_: float | Tensor) -> Denoiser:
    """The denoiser of y. Shifted once, for the network's input and for the x that its answer is read against.

    A lambda_ of 0 has nothing to shift.
    """
    if isinstance(lambda_, float) and not lambda_:
        return denoise

    def denoise_y(y: Tensor, sigma: Tensor) -> Tensor:
        return denoise(shift(y, z_c, sigma, lambda_), sigma)

    return denoise_y


def from_residual(denoise: Denoiser, z_c: Tensor, scale: float) -> Denoiser:
    """The denoiser of frames, of one that was trained on (z_0 - z_c) / scale; a scale of 0 is one of frames already.

    With y = z_0 + sigma eps, (y - z_c) / scale is that residual at noise sigma / scale. Not of the paper: what stays
    as z_c shows it is right before anything is learnt.
    """
    if not scale:
        return denoise

    def denoise_y(y: Tensor, sigma: Tensor) -> Tensor:
        return z_c + scale * denoise((y - z_c) / scale, sigma / scale)

    return denoise_y


def starting_noise(eps_n: Tensor, z_c: Tensor, gamma: float, mask: Tensor | float = 1.0) -> Tensor:
    """Unit noise that a sampler of y starts from: eps_n + gamma z_c (section 4.2.2; lambda z_c is the shift's part).

    mask is 1 where the frame is to be made and 0 where it is given (the host reuses the noise for given regions).
    At full noise ComfyUI starts from sqrt(1 + sigma_max^2) * noise, so gamma = 1 / sqrt(1 + sigma_max^2), 0.068 for
    SD's schedule, would put the whole mean of a video near z_c back into the start.
    """
    if gamma == 0:
        return eps_n
    return eps_n + gamma * z_c * mask
