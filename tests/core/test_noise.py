"""The algebra of the Appearance Noise Prior, the schedule, and the standalone sampler."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.testing import assert_close

from microcinema_core.diffusion.ddim import ddim, ddim_steps
from microcinema_core.diffusion.noise import (
    from_residual,
    shift,
    starting_noise,
    training_noise,
    with_prior,
)
from microcinema_core.diffusion.schedule import (
    NoiseSchedule,
    alphas_cumprod,
    denoised_from_output,
    denoiser,
    diffuse,
    training_target,
)

SCHEDULE = NoiseSchedule()
LAMBDA = 0.03


def gaussian_denoiser(mean: float, deviation: float, lambda_: float, z_c: Tensor):
    """Return the exact denoiser of x = z_0 + sigma (lambda z_c + eps) for independent z_0 ~ N(mean, deviation^2)."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        clean = x - sigma * lambda_ * z_c
        return (deviation**2 * clean + sigma**2 * mean) / (deviation**2 + sigma**2)

    return denoise


def test_schedule_is_stable_diffusions() -> None:
    theirs = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    assert_close(alphas_cumprod().float(), theirs, rtol=1e-5, atol=1e-7)
    steps = torch.tensor([0.0, 1.0, 317.0, 999.0])
    assert_close(SCHEDULE.timestep(SCHEDULE.sigmas[steps.long()]), steps, rtol=0, atol=1e-2)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_perfect_answers_denoise_perfectly_with_the_prior(prediction: str) -> None:
    g = torch.Generator().manual_seed(0)
    z_0, z_c, eps_n = torch.randn(3, 2, 4, 8, 8, generator=g)
    eps = training_noise(eps_n, z_c, LAMBDA)
    alpha_bar = alphas_cumprod()[700].float()
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    x = diffuse(z_0, eps, alpha_bar) / alpha_bar.sqrt()
    output = training_target(z_0, eps, alpha_bar, prediction)  # type: ignore[arg-type]
    assert_close(denoised_from_output(output, x, sigma, prediction), z_0, rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]
    assert_close(shift(z_0 + sigma * eps_n, z_c, sigma, LAMBDA), x, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("prior", [0.0, LAMBDA])
def test_a_denoiser_of_residuals_is_one_of_frames(prior: float) -> None:
    """Normally distributed frames around z_c, denoised directly and as (z_0 - z_c) / 0.3, with and without a prior."""
    g = torch.Generator().manual_seed(0)
    z_c, y = torch.randn(2, 3, 4, 8, 8, generator=g)
    residuals = gaussian_denoiser(0.5 / 0.3, 0.2 / 0.3, prior, z_c)
    frames = gaussian_denoiser(0.0, 0.2, 0.0, z_c)
    for sigma in (torch.tensor(0.1), torch.tensor(5.0)):
        wanted = z_c + 0.5 + frames(y - z_c - 0.5, sigma)
        assert_close(from_residual(with_prior(residuals, z_c, prior), z_c, 0.3)(y, sigma), wanted)
    assert from_residual(residuals, z_c, 0.0) is residuals


def test_wrapped_and_direct_agree_for_an_ode_solver() -> None:
    g = torch.Generator().manual_seed(0)
    z_c, noise = torch.randn(2, 3, 4, 8, 8, generator=g)
    denoise = gaussian_denoiser(0.5, 0.3, LAMBDA, z_c)
    sigmas = SCHEDULE.sampling_sigmas(30)
    y = noise * sigmas[0]
    *_, wrapped = ddim_steps(with_prior(denoise, z_c, LAMBDA), y, sigmas)
    *_, direct = ddim_steps(denoise, shift(y, z_c, sigmas[0], LAMBDA), sigmas)
    assert_close(wrapped, direct, rtol=1e-5, atol=2e-5)


def test_zero_lambda_and_gamma_change_no_bit() -> None:
    g = torch.Generator().manual_seed(0)
    z_c, noise = torch.randn(2, 3, 4, 8, 8, generator=g)
    denoise = gaussian_denoiser(0.5, 0.3, 0.0, z_c)
    assert starting_noise(noise, z_c, 0.0) is noise
    assert torch.equal(ddim(denoise, noise, steps=4), ddim(with_prior(denoise, z_c, 0.0), noise, steps=4))


def test_gamma_leaves_given_frames_alone() -> None:
    z_c, noise, mask = (
        torch.ones(2, 4, 1, 1),
        torch.zeros(2, 4, 1, 1),
        torch.tensor([0.0, 1.0])[:, None, None, None],
    )
    started = starting_noise(noise, z_c, 0.02, mask)
    assert not started[0].any() and torch.equal(started[1], torch.full((4, 1, 1), 0.02))


def test_ddim_is_diffusers_ddim() -> None:
    """The trajectory equals an independent implementation's, from the same noise and with a nonlinear network."""
    theirs = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=True,
    )
    theirs.set_timesteps(10)
    theirs.timesteps = torch.arange(999, 0, -100)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) * (1 + t.view(-1, 1, 1, 1) / 1000)

    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigmas = torch.cat([SCHEDULE.sigmas[theirs.timesteps], torch.zeros(1)])
    *_, ours = ddim_steps(denoiser(network, SCHEDULE), noise * (1 + sigmas[0] ** 2).sqrt(), sigmas)
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(network(x, t.float().expand(2)), int(t), x).prev_sample
    assert_close(ours, x, rtol=1e-3, atol=1e-3)


def test_sampling_needs_a_step() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        SCHEDULE.sampling_sigmas(0)
