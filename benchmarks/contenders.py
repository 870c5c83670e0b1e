"""Networks of Stable Diffusion 2.1's size with random weights, each with a callable for one step.

A step is one call of the network for the prompt and the empty prompt: two clips in one batch, as the host does it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from devtools.run.host import Host
from microcinema_core.config import CONTEXT_LENGTH, AppearNetConfig, InjectionKind, UNetConfig
from microcinema_core.diffusion.noise import shift
from microcinema_core.networks.appearnet import AppearNet

BRANCHES = 2
TSR_FRAMES = 5
TOKENS, CONTEXT = CONTEXT_LENGTH, 1024
SD21 = UNetConfig()
FLOOR = "Stable Diffusion 2.1 (ComfyUI)"
OURS = "MicroCinema"
"""With AppearNet, injection and noise prior; features are cached, as at every step but the first."""
FIRST = "MicroCinema, first step"
BARE = "MicroCinema without AppearNet"
TSR_CACHED, TSR_FIRST = "MicroCinema TSR", "MicroCinema TSR, first step"

Step = Callable[[], Any]


@dataclass(frozen=True)
class Shape:
    """The input of a contender: frames, side in pixels (latents are an eighth of it), dtype and device."""

    frames: int = 9
    size: int = 320
    dtype: torch.dtype = torch.bfloat16
    device: str = "cpu"

    @property
    def latent(self) -> int:
        """Side of the latents."""
        return self.size // 8

    def latents(self, channels: int = 4, *, clips: int = BRANCHES) -> Tensor:
        """Return random latents `(clips f) c h w`."""
        shape = (clips * self.frames, channels, self.latent, self.latent)
        return torch.randn(shape, dtype=self.dtype, device=self.device)

    def context(self, rows: int, width: int = CONTEXT) -> Tensor:
        """Return random text embeddings `rows l width`."""
        return torch.randn(rows, TOKENS, width, dtype=self.dtype, device=self.device)

    def times(self, rows: int) -> Tensor:
        """Return the timestep 500 for each row, `rows`."""
        return torch.full((rows,), 500.0, device=self.device)


@dataclass(frozen=True)
class Contender:
    """A network, or U-Net and AppearNet, and a callable for one step."""

    step: Step
    networks: tuple[nn.Module, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters of all networks."""
        return sum(p.numel() for net in self.networks for p in net.parameters())


class MissingError(RuntimeError):
    """The library of a contender is not installed."""


def filled(network: nn.Module) -> nn.Module:
    """Fill the network's uninitialised weights with small random numbers, except on the meta device."""
    for parameter in network.parameters():
        if parameter.device.type != "meta":
            parameter.data.uniform_(-0.02, 0.02)
    return network.eval().requires_grad_(False)


def _operations(shape: Shape) -> dict[str, Any]:
    """Settings of a network built from the host's layers, without initialisation."""
    import comfy.ops  # type: ignore[import-not-found]

    return {"operations": comfy.ops.disable_weight_init, "dtype": shape.dtype, "device": shape.device}


def image_model(shape: Shape, config: UNetConfig = SD21) -> Contender:
    """Build the baseline: the host's image model on as many pictures as the clip has frames."""
    net = _stock_unet(shape, config)
    x = shape.latents()
    rows = x.shape[0]
    arguments = (x, shape.times(rows), shape.context(rows, config.context_dim))
    return Contender(lambda: net(*arguments, transformer_options={}), (net,))


def _stock_unet(shape: Shape, config: UNetConfig = SD21, **changes: Any) -> Any:
    """Build the host's U-Net of a Stable Diffusion, with `changes` to its settings."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # type: ignore[import-not-found]

    from microcinema_core.adapter.network import host_unet_config

    settings = host_unet_config(config.as_2d()) | {
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "use_checkpoint": False,
    }
    del settings["microcinema"]
    return filled(UNetModel(**(settings | changes), **_operations(shape)))


def ours(shape: Shape, *, injection: InjectionKind | None = "spade", fresh: bool = False) -> Contender:
    """Build MicroCinema with one centre frame. fresh: AppearNet runs at every step."""
    config = None if injection is None else AppearNetConfig(SD21, injection=injection)
    return with_appearnet(shape, SD21, config, shape.latents(clips=1)[:1], fresh=fresh)


def ours_tsr(shape: Shape, *, fresh: bool = False) -> Contender:
    """Build MicroCinema TSR on one pair of key frames: five frames, each with its own appearance latents."""
    return with_appearnet(shape, SD21, AppearNetConfig(SD21), shape.latents(clips=1), fresh=fresh)


def _networks(shape: Shape, unet: UNetConfig, config: AppearNetConfig | None) -> tuple[Any, AppearNet | None]:
    from microcinema_core.adapter.network import HostUNet, host_attention

    settings = _operations(shape)
    net = filled(HostUNet(microcinema=unet, **settings))
    if config is None:
        return net, None
    appearnet = AppearNet(
        config,
        operations=settings["operations"],
        dtype=shape.dtype,
        device=shape.device,
        attend=host_attention,
    )
    return net, filled(appearnet)  # type: ignore[return-value]


def with_appearnet(
    shape: Shape,
    unet: UNetConfig,
    appearnet_config: AppearNetConfig | None,
    latent: Tensor,
    *,
    fresh: bool = False,
    lambda_: float = 0.03,
    tokens: Tensor | None = None,
    fps: float | None = None,
) -> Contender:
    """Build our networks as the host calls them.

    Args:
        shape: the input.
        unet: configuration of the U-Net.
        appearnet_config: configuration of AppearNet; None leaves it out.
        latent: AppearNet's input, `1 c h w` or `f c h w`.
        fresh: whether AppearNet runs at every step, also where its features could be kept.
        lambda_: the noise prior's share of z_c; 0 leaves the prior out, as for published weights.
        tokens: image tokens of each guidance branch, `2 n d`; None for networks that take none.
        fps: the frame rate that the U-Net is told; None tells it none.
    """
    from microcinema_core.adapter.feature_cache import (
        INJECTOR,
        FeatureCache,
        Injector,
        with_cache_key,
    )
    from microcinema_core.adapter.model import APPEARNET_INPUT, IMAGE_TOKENS
    from microcinema_core.adapter.network import FPS

    net, appearnet = _networks(shape, unet, appearnet_config)
    x = shape.latents()
    rows = x.shape[0]
    times, context = shape.times(rows), shape.context(rows, unet.context_dim)
    sigma = torch.full((rows, 1, 1, 1), 2.0, device=shape.device)
    z_c = with_cache_key(latent.repeat(rows // latent.shape[0], 1, 1, 1), "the same at every step")
    cache = FeatureCache()
    options: dict[str, Any] = {"cond_or_uncond": [0, 1]}
    given: dict[str, Any] = {}
    if appearnet is not None:
        options[INJECTOR] = Injector(appearnet, 1.0, latent.shape[0] == 1, cache)
        given[APPEARNET_INPUT] = z_c
    if tokens is not None:
        given[IMAGE_TOKENS] = tokens
    if fps is not None:
        options[FPS] = fps

    def step() -> Tensor:
        if fresh:
            cache.clear()
        prior = appearnet is not None and lambda_
        noisy = shift(x.float(), z_c.float(), sigma, lambda_).to(x.dtype) if prior else x
        return net(noisy, times, context, transformer_options=dict(options), **given)

    return Contender(step, (net,) if appearnet is None else (net, appearnet))


def stable_video_diffusion(shape: Shape) -> Contender:
    """Build the host's SVD U-Net; its context is one token, the embedding of a picture."""
    import comfy.supported_models  # type: ignore[import-not-found]

    video = {
        "num_head_channels": 64,
        "num_heads": -1,
        "num_classes": "sequential",
        "video_kernel_size": [3, 1, 1],
        "extra_ff_mix_layer": True,
        "merge_strategy": "learned_with_images",
        "merge_factor": 0.0,
        "max_ddpm_temb_period": 10000,
        "disable_temporal_crossattention": False,
    }
    net = _stock_unet(shape, SD21, **comfy.supported_models.SVD_img2vid.unet_config, **video)
    x = shape.latents(8)
    rows = x.shape[0]
    options = {
        "y": torch.randn(rows, 768, dtype=shape.dtype, device=shape.device),
        "image_only_indicator": torch.zeros(BRANCHES, shape.frames, device=shape.device),
        "num_video_frames": shape.frames,
    }
    arguments = (x, shape.times(rows), shape.context(rows)[:, :1])
    return Contender(lambda: net(*arguments, transformer_options={}, **options), (net,))


def from_diffusers(name: str, shape: Shape, **settings: Any) -> nn.Module:
    """Build a diffusers network by class name in the shape's precision; MissingError without diffusers."""
    try:
        import diffusers
    except ImportError as error:
        raise MissingError(f"{name} needs diffusers: pip install diffusers") from error
    with torch.device(shape.device):
        made = getattr(diffusers, name)(**settings)
    return filled(made.to(shape.dtype))


def diffusers_network(name: str, **settings: Any) -> Callable[[Shape], Contender]:
    """Return a builder for a diffusers network by class name, with its defaults; clips `b c f h w`."""

    def build(shape: Shape) -> Contender:
        net = from_diffusers(name, shape, **settings)
        clip = torch.randn(
            BRANCHES, 4, shape.frames, shape.latent, shape.latent, dtype=shape.dtype, device=shape.device
        )
        config: Any = net.config
        width = config.cross_attention_dim
        text = torch.randn(BRANCHES, TOKENS, width, dtype=shape.dtype, device=shape.device)
        arguments: dict[str, Any] = {"timestep": torch.tensor(500, device=shape.device)}
        if name == "UNetMotionModel":
            text = text.repeat_interleave(shape.frames, dim=0)
        if name == "I2VGenXLUNet":
            arguments["fps"] = torch.full((BRANCHES,), 2, device=shape.device)
            arguments["image_latents"] = clip
            arguments["image_embeddings"] = text[:, 0]
        return Contender(lambda: net(clip, encoder_hidden_states=text, **arguments), (net,))

    return build


PEERS: dict[str, Callable[[Shape], Contender]] = {
    "ModelScope (diffusers UNet3DConditionModel)": diffusers_network("UNet3DConditionModel"),
    "I2VGen-XL (diffusers I2VGenXLUNet)": diffusers_network("I2VGenXLUNet"),
    "AnimateDiff at SD 1.5's size (diffusers UNetMotionModel)": diffusers_network(
        "UNetMotionModel", cross_attention_dim=768
    ),
    "Stable Video Diffusion (ComfyUI)": stable_video_diffusion,
}
ALL: dict[str, Callable[[Shape], Contender]] = {
    FLOOR: image_model,
    BARE: lambda shape: ours(shape, injection=None),
    OURS: ours,
    FIRST: lambda shape: ours(shape, fresh=True),
    "MicroCinema, add_encdec, first step": lambda shape: ours(shape, injection="add_encdec", fresh=True),
    "MicroCinema, add_dec, first step": lambda shape: ours(shape, injection="add_dec", fresh=True),
    "MicroCinema, concat, first step": lambda shape: ours(shape, injection="concat", fresh=True),
    TSR_CACHED: ours_tsr,
    TSR_FIRST: lambda shape: ours_tsr(shape, fresh=True),
    **PEERS,
}


def shape_of(name: str, shape: Shape) -> Shape:
    """Return the shape for a contender: TSR's get one window of five frames."""
    return replace(shape, frames=TSR_FRAMES) if name in (TSR_CACHED, TSR_FIRST) else shape


def versions() -> dict[str, str]:
    """Return the installed versions of torch and diffusers."""
    found = {}
    for name in ("torch", "diffusers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def boot_host(host: Host, device: str = "cpu") -> str:
    """Make the host's modules importable, with its fast attention, on a device; return its version."""
    from devtools.check.conformance.boot import host_version, open_host

    open_host(host.path, cpu=device == "cpu")
    return host_version()
