"""The MODEL: a stock `BaseModel` that samples y, the variable in which the Appearance Noise Prior is plain
noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config import UNetConfig
from ..diffusion.noise import from_residual, with_prior
from ..files.safetensors_io import SAVED_METADATA, metadata_tensor
from ..networks.layers import of_size
from .feature_cache import (
    APPEARANCE,
    AppearanceCall,
    AppearanceCond,
    FeatureCache,
    name_of,
    named,
)
from .host import comfy
from .network import HostUNet

ATTACHMENT = "microcinema"
APPEARNET_KEY = "microcinema_appearnet"
Z_C = "microcinema_z_c"
DROP = "microcinema_drop_appearance"
"""A conditioning entry with this key set runs without AppearNet and at lambda = 0."""


@dataclass(frozen=True)
class ModelInfo:
    """What a MODEL's weights were trained for, as its file says; `metadata` in the file's own words."""

    config: UNetConfig
    role: str
    lambda_: float
    fps: float
    frames: int
    residual: float
    name: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Appearance:
    """How one MODEL in a graph uses the centre frame; replaced as a whole, never changed.

    Attributes:
        latent: raw latents as the VAE gave them, one frame or one for each frame, float32.
        strength: of AppearNet's injection.
        start_percent, end_percent: the part of the sampling run in which appearance is used at all.
        lambda_: the prior's share of the noise that the network was trained with.
        gamma: the user's extra share in the starting noise.
    """

    latent: Tensor
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    lambda_: float = 0.0
    gamma: float = 0.0

    @property
    def still(self) -> bool:
        return self.latent.shape[0] == 1

    def active(self, sigma: Tensor, model_sampling: Any) -> bool:
        """Whether this noise level lies within start and end percent."""
        if self.start_percent <= 0.0 and self.end_percent >= 1.0:
            return True
        start = model_sampling.percent_to_sigma(self.start_percent)
        end = model_sampling.percent_to_sigma(self.end_percent)
        return end <= float(sigma.max()) <= start

    def fitted(self, noise: Tensor) -> Tensor:
        """Return the latents if they fit a noise tensor `(b f) c h w`; `ValueError` says what does not
        fit.
        """
        if self.latent.shape[1:] != noise.shape[1:]:
            raise ValueError(
                f"centre_frame has latents of (channels, height, width) {tuple(self.latent.shape[1:])}, "
                f"the latent "
                f"image {tuple(noise.shape[1:])}: give both the same size, encoded with the model's own VAE."
            )
        if noise.shape[0] % self.latent.shape[0]:
            raise ValueError(
                f"centre_frame holds {self.latent.shape[0]} frames, the latent image {noise.shape[0]}: "
                "give one centre frame, or as many as the video has."
            )
        return self.latent


class MicroCinemaModel(comfy.model_base.BaseModel):
    """Evaluates the network at x = y + sigma * lambda * z_c and reads its answer against that same x.

    One that was trained on (z_0 - z_c) / residual is asked for that, and answers z_0 (`noise.from_residual`).
    """

    def __init__(self, model_config: Any, model_type: Any = None, device: Any = None) -> None:
        model_type = comfy.model_base.ModelType.EPS if model_type is None else model_type
        super().__init__(model_config, model_type, device=device, unet_model=HostUNet)
        self.feature_cache = FeatureCache()
        self.info: ModelInfo | None = None

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Add z_c, in model space, to what the network gets; the host then crops it as it crops the noise."""
        out = super().extra_conds(**kwargs)
        appearance = self._appearance()
        if appearance is not None and not kwargs.get(DROP, False):
            noise = kwargs["noise"]
            z_c = self.process_latent_in(appearance.fitted(noise).to(kwargs["device"], torch.float32))
            out[Z_C] = AppearanceCond(z_c, name=object())
        return out

    def _apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the denoised estimate of y, which is that of x: both have the same clean frames."""
        options = dict(transformer_options or {})
        z_c, appearance = kwargs.pop(Z_C, None), self._appearance()

        def network(x: Tensor, sigma: Tensor) -> Tensor:
            t = sigma.reshape(-1)
            return super(MicroCinemaModel, self)._apply_model(
                x, t, c_concat, c_crossattn, control, options, **kwargs
            )

        if z_c is None or appearance is None:
            return network(x, t)
        z_c, lambda_ = of_size(z_c, x), 0.0
        if appearance.active(t, self.model_sampling):
            lambda_ = appearance.lambda_
            call = self._appearance_call(appearance)
            if call is not None:
                options[APPEARANCE] = call
                kwargs[Z_C] = self._as_the_network_gets_it(z_c, x.device)
        z_c, scale = z_c.to(x.device, torch.float32), self.info.residual if self.info else 0.0
        denoise = from_residual(with_prior(network, z_c, lambda_), z_c, scale)
        return denoise(x.float(), t.float().reshape(-1, 1, 1, 1))

    def state_dict_for_saving(self, *state_dicts: Any, **named: Any) -> dict[str, Tensor]:
        """Add what a loader of ours must know: the host's ModelSave writes tensors, no metadata of a model's."""
        out = super().state_dict_for_saving(*state_dicts, **named)
        if self.info is not None:
            out[SAVED_METADATA] = metadata_tensor(self.info.metadata)
        return out

    def _as_the_network_gets_it(self, z_c: Tensor, device: torch.device) -> Tensor:
        """Return z_c with its name on the device and in the precision that the host would give it, without a name."""
        dtype = self.manual_cast_dtype or self.get_dtype()
        return named(z_c.to(device, dtype), name_of(z_c))

    def _appearance(self) -> Appearance | None:
        return None if self.current_patcher is None else self.current_patcher.get_attachment(ATTACHMENT)

    def _appearance_call(self, appearance: Appearance) -> AppearanceCall | None:
        patchers = self.current_patcher.get_additional_models_with_key(APPEARNET_KEY)
        if not patchers or appearance.strength == 0:
            return None
        return AppearanceCall(patchers[0].model, appearance.strength, appearance.still, self.feature_cache)
