"""The host's noise levels for weights that were trained on scaled clean latents (`schedule.latent_scales`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..diffusion.schedule import latent_scales
from ..model_spec import ModelSpec
from .host import comfy


class _Rescaled:
    """Mixin before the host's classes: samplers work on unscaled latents, and the network sees scaled ones.

    With y = z_0 + sigma eps, s_t y is s_t z_0 at noise s_t sigma. So t and s_t are looked up from sigma first, and
    everything else uses s_t y and s_t sigma.
    """

    def __init__(self, model_config: Any, rescale: float) -> None:
        super().__init__(model_config)  # type: ignore[call-arg]
        base: Any = self
        base.register_buffer("scales", latent_scales(rescale, base.num_timesteps).float())
        base.set_sigmas(base.sigmas.double() / base.scales.double())

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return the network's input from y."""
        scale = self._scale(sigma, noise.ndim)
        sigma = comfy.model_sampling.reshape_sigma(sigma, noise.ndim)
        return super().calculate_input(scale * sigma, scale * noise)  # type: ignore[misc]

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Return the estimate of z_0 from the network's output and y."""
        scale = self._scale(sigma, model_output.ndim)
        sigma = comfy.model_sampling.reshape_sigma(sigma, model_output.ndim)
        scaled = super().calculate_denoised(scale * sigma, model_output, scale * model_input)  # type: ignore[misc]
        return scaled / scale

    def _scale(self, sigma: Tensor, dimensions: int) -> Tensor:
        base: Any = self
        scales: Tensor = base.scales
        found = scales[base.timestep(sigma).to(scales.device)].to(sigma.device)
        return comfy.model_sampling.reshape_sigma(found, dimensions)


def rescaled_sampling(model_config: Any, spec: ModelSpec) -> Any:
    """Return the host's `model_sampling` for weights with a rescale of latents."""
    predicts = comfy.model_sampling.V_PREDICTION if spec.prediction == "v" else comfy.model_sampling.EPS
    kind = type("RescaledSampling", (_Rescaled, comfy.model_sampling.ModelSamplingDiscrete, predicts), {})
    return kind(model_config, spec.rescale)
