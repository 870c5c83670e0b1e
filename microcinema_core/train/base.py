"""Stage `base`: the image&text-to-video model, inflated from the image stage's U-Net (sections 3.1 to 3.3)."""

from __future__ import annotations

from torch import Tensor

from ..config import AppearNetConfig, UNetConfig
from ..files.checkpoint import Checkpoint
from ..files.inflate import inflate
from .config import TrainConfig
from .networks import ModelTable, Networks, own_configs
from .video import Role, VideoStage, build_video_stage


def centre_frame(z_0: Tensor) -> Tensor:
    """`b f c h w` -> the centre frame `b c h w`, f // 2."""
    return z_0[:, z_0.shape[1] // 2]


def never_moves(name: str) -> bool:
    """With equal frames, temporal attention returns its value: q and k get no gradient, so nothing may move them."""
    return "temporal.attn.to_q" in name or "temporal.attn.to_k" in name


def configs(model: ModelTable, first: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
    """A base file brings its own; an image file is inflated as the [model] table says."""
    if first.role != "image":
        return own_configs(model, first)
    unet = UNetConfig.from_dict(first.configs["unet"]).inflated(injected_norm=model.injected_norm)
    fields = ("injection", "hidden", "spade_norms", "time_conditioned", "text_conditioned")
    return unet, AppearNetConfig(unet, **{name: getattr(model, name) for name in fields})


def start(networks: Networks, first: Checkpoint, seed: int) -> None:
    """The weights at step 0."""
    if first.role == "base":
        networks.video.load(first)
        return
    net = networks.video.appearnet.config
    born = inflate(
        first.part("unet"),
        config=networks.video.unet.config.as_2d(),
        injection=net.injection,
        seed=seed,
        appearnet={"hidden": net.hidden, "spade_norms": net.spade_norms},
    )
    networks.video.unet.load_state_dict(born.unet)
    networks.video.appearnet.load_state_dict(born.appearnet)


BASE = Role("base", ("image", "base"), centre_frame, never_moves, configs, start)


def build(config: TrainConfig) -> VideoStage:
    """From `init_from`: an image file (inflated at birth), or a base file that is trained on."""
    return build_video_stage(BASE, config)
