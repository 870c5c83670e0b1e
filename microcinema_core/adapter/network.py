"""The 3D U-Net under the host's calling convention, and the host's configuration classes for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..config import UNetConfig
from ..model_spec import ModelSpec
from ..networks.appearnet import AppearNet
from ..networks.injection import NO_INJECTION
from ..networks.layers import ImageContext
from ..networks.unet import UNet3D
from .feature_cache import FRAMES, INJECTOR
from .host import comfy

FPS = "microcinema_fps"
"""Key of the host's transformer_options: the frame rate that a network with `fps_embedding` is told."""
MEMORY_FACTOR = 2.0
"""Memory compared with the stock model: temporal layers, and AppearNet, for which the host reserves nothing."""


def host_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **options: Any) -> Tensor:
    """Attend with the function that the host was started with, looked up at each call."""
    return comfy.ldm.modules.attention.optimized_attention(q, k, v, heads, **options)


def frames_per_video(batch: int, options: dict[str, Any]) -> int:
    """Return the number of frames of one video in a batch.

    A guidance branch is one video, unless TSR sets `FRAMES` because it holds several.
    """
    branches = len(options.get("cond_or_uncond", (0,)))
    return options.get(FRAMES) or batch // branches


def feature_memory(net: AppearNet, shape: Sequence[int]) -> float:
    """Return the bytes of an AppearNet's features beside the U-Net, for an AppearNet that is evaluated at each step.

    Those of one that is evaluated once per clip are within `MEMORY_FACTOR`.

    Args:
        net: the AppearNet.
        shape: `n c h w` of the latents of a call, guidance branches included.
    """
    if net.per_clip or net.config.injection == "concat":
        return 0.0
    frames, height, width = shape[0], shape[-2], shape[-1]
    per_level = net.encoder.config.num_res_blocks + 1
    blocks = [(channels, index // per_level) for index, channels in enumerate(net.encoder.skip_channels)]
    blocks.append(blocks[-1])  # the middle block
    values = sum(channels * height * width / 4**level for channels, level in blocks)
    each = max(2, torch.empty((), dtype=net.dtype).element_size())  # fp8 weights compute in 16 bits
    return 2 * frames * values * each  # as the encoder leaves them, and as they are injected


class HostUNet(UNet3D):
    """UNet3D as the host calls it: the number of frames and the appearance come from the transformer options.

    Args:
        microcinema: the U-Net's configuration, which `host_unet_config` puts beside the host's own fields.
        operations: namespace of layer classes.
        attn_precision: dtype of the attention scores; None is the inputs' own.
        dtype: dtype of the weights.
        device: device of the weights.
    """

    def __init__(
        self,
        *,
        microcinema: UNetConfig,
        operations: Any,
        attn_precision: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(
            microcinema,
            operations=operations,
            dtype=dtype,
            device=device,
            attend=host_attention,
            attn_precision=attn_precision,
        )
        self.in_channels = microcinema.in_channels  # stock nodes read it (RenormCFG)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Map latents `(b f) c h w` to the prediction `(b f) c h w`, through the host's model wrappers."""
        options = {} if transformer_options is None else transformer_options
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        wrappers = comfy.patcher_extension.get_all_wrappers(kind, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._run_video, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, options, **kwargs)

    def _run_video(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: dict[str, Any] | None = None,
        *,
        microcinema_appearnet_input: Tensor | None = None,
        microcinema_image_tokens: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        options = {} if transformer_options is None else transformer_options
        frames = frames_per_video(x.shape[0], options)
        injector = options.get(INJECTOR)
        injection = None
        if injector is not None and microcinema_appearnet_input is not None:
            branches = len(options.get("cond_or_uncond", (0,)))
            injection = injector.injection(
                microcinema_appearnet_input, timesteps, context, frames=frames, branches=branches
            )
        if injector is not None and microcinema_image_tokens is not None:
            image = ImageContext(microcinema_image_tokens, injector.strength)
            injection = replace(injection or NO_INJECTION, image=image)
        return super().forward(
            x,
            timesteps,
            context,
            y,
            control,
            options,
            frames=frames,
            injection=injection,
            fps=options.get(FPS),
        )


class FoldedLatents(comfy.latent_formats.LatentFormat):
    """Latents of a `FoldedVAE`: it normalises them to unit variance, so the scale is 1.

    Args:
        channels: number of channels.
        latent_rgb: `VAEConfig.latent_rgb`, for previews.
    """

    scale_factor = 1.0

    def __init__(self, channels: int = 8, latent_rgb: tuple[tuple[float, ...], ...] | None = None) -> None:
        self.latent_channels = channels
        if latent_rgb is not None:
            rows = torch.tensor(latent_rgb)
            self.latent_rgb_factors = rows[:, :channels].T.tolist()
            self.latent_rgb_factors_bias = rows[:, channels].tolist()


class _MicroCinemaConfig:
    """Mixin of the stock configurations: memory factor, prediction and class of a MicroCinema model."""

    unet_config: dict[str, Any]
    unet_extra_config: dict[str, Any] = {}
    memory_usage_factor = MEMORY_FACTOR
    prediction = "eps"
    model_class: Any = None

    def model_type(self, state_dict: dict[str, Tensor], prefix: str = "") -> Any:
        """Return the host's model type from the file's metadata; the stock method guesses it from the weights."""
        types = comfy.model_base.ModelType
        return types.V_PREDICTION if self.prediction == "v" else types.EPS

    def get_model(self, state_dict: dict[str, Tensor], prefix: str = "", device: Any = None) -> Any:
        """Build the model, its weights not yet loaded."""
        return self.model_class(self, model_type=self.model_type(state_dict, prefix), device=device)


class MicroCinemaSD20(_MicroCinemaConfig, comfy.supported_models.SD20):
    """An inflated Stable Diffusion 2.x; its attention runs in float32, as stock 2.x needs it."""

    unet_extra_config = {"attn_precision": torch.float32}


class MicroCinemaSD15(_MicroCinemaConfig, comfy.supported_models.SD15):
    """An inflated Stable Diffusion 1.x."""


class MicroCinemaCustom(_MicroCinemaConfig, comfy.supported_models.SD15):
    """A U-Net of a VAE other than Stable Diffusion's."""

    latent_format = FoldedLatents


def model_config(config: UNetConfig, spec: ModelSpec, *, latent_rgb: Any = None) -> Any:
    """Return the host's configuration object of a U-Net.

    Args:
        config: the U-Net's configuration.
        spec: what its weights were trained for.
        latent_rgb: `VAEConfig.latent_rgb`, for previews of latents other than Stable Diffusion's.
    """
    stock = config.in_channels == 4
    if stock and config.context_dim == 1024:
        chosen: Any = MicroCinemaSD20(host_unet_config(config))
    elif stock:
        chosen = MicroCinemaSD15(host_unet_config(config))
    else:
        chosen = MicroCinemaCustom(host_unet_config(config))
        chosen.latent_format = FoldedLatents(config.in_channels, latent_rgb)
    chosen.prediction = spec.prediction
    if spec.zero_terminal_snr:
        chosen.sampling_settings = {**chosen.sampling_settings, "zsnr": True}
    if spec.betas == "linear":  # the host calls Stable Diffusion's own betas "linear"
        chosen.sampling_settings = {**chosen.sampling_settings, "beta_schedule": "sqrt_linear"}
    return chosen


def host_unet_config(config: UNetConfig) -> dict[str, Any]:
    """Return a U-Net's configuration in the host's fields, which its LoRA key map reads, with our own beside them."""
    depths = [depth for depth in config.transformer_depth for _ in range(config.num_res_blocks)]
    outputs = [depth for depth in config.transformer_depth for _ in range(config.num_res_blocks + 1)]
    return {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": config.model_channels,
        "channel_mult": list(config.channel_mult),
        "num_res_blocks": [config.num_res_blocks] * len(config.channel_mult),
        "transformer_depth": depths,
        "transformer_depth_output": outputs,
        "transformer_depth_middle": 1,
        "context_dim": config.context_dim,
        "num_heads": config.num_heads,
        "num_head_channels": config.num_head_channels,
        "use_linear_in_transformer": config.use_linear_in_transformer,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "microcinema": config,
    }
