"""The change of variables under the host's own samplers, on a toy whose exact denoiser is known.

z_0 is Gaussian, every element alone; the "network" is the exact denoiser of x = z_0 + sigma (lambda z_c + eps_n). So
the correct result is known: the mean and deviation of z_0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from microcinema_core.diffusion.noise import shift, with_prior
from microcinema_core.diffusion.schedule import NoiseSchedule

MEAN, DEVIATION, LAMBDA = 0.5, 0.3, 0.1
STEPS = 250


class Toy:
    """A denoiser under the host's calling convention."""

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor], model_sampling: Any) -> None:
        self.denoise = denoise
        patcher = SimpleNamespace(get_model_object=lambda name: model_sampling)
        core = SimpleNamespace(model_sampling=model_sampling)
        self.inner_model = SimpleNamespace(inner_model=core, model_patcher=patcher)

    def __call__(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        return self.denoise(x, sigma.reshape(-1, 1, 1, 1))


@pytest.fixture(scope="module")
def toy(comfy_in_process: Path) -> Callable[..., Tensor]:
    import comfy.model_sampling
    from comfy.k_diffusion import sampling

    class Discrete(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    model_sampling = Discrete()
    z_c = torch.full((1, 1, 1, 1), 6.0)
    sigmas = NoiseSchedule().sampling_sigmas(STEPS)

    def exact(x: Tensor, sigma: Tensor) -> Tensor:
        clean = x - sigma * LAMBDA * z_c
        return (DEVIATION**2 * clean + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)

    def run(name: str, *, wrapped: bool) -> Tensor:
        """Sample from the same starting y in both forms."""
        torch.manual_seed(0)
        y = torch.randn(16, 1, 32, 32) * sigmas[0]
        model = Toy(with_prior(exact, z_c, LAMBDA) if wrapped else exact, model_sampling)
        start = y if wrapped else shift(y, z_c, sigmas[0], LAMBDA)
        return getattr(sampling, f"sample_{name}")(model, start, sigmas, extra_args={"seed": 1}, disable=True)

    return run


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "lms", "dpm_2"])
def test_both_forms_agree_where_no_fresh_noise_is_drawn(toy: Callable[..., Tensor], name: str) -> None:
    torch.testing.assert_close(toy(name, wrapped=True), toy(name, wrapped=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde", "dpmpp_2s_ancestral"])
def test_only_the_wrapped_form_is_right_with_fresh_noise(toy: Callable[..., Tensor], name: str) -> None:
    wrapped, direct = toy(name, wrapped=True), toy(name, wrapped=False)
    assert wrapped.mean() == pytest.approx(MEAN, abs=0.03)
    assert wrapped.std() == pytest.approx(DEVIATION, rel=0.1)
    assert abs(float(direct.mean()) - MEAN) > 0.1
