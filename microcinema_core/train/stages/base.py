"""Stage `base`: the image&text-to-video model, inflated from the image stage's U-Net (sections 3.1 to 3.3)."""

from __future__ import annotations

from torch import Tensor

from ...checkpoint import Checkpoint, read_checkpoint
from ...config import AppearNetConfig, UNetConfig
from ...data.paths import home_folder
from ...data.shards import ShardDataset
from ...inflate import inflate
from ..config import TrainConfig, from_table
from .clips import ClipLoss, ClipModel, ClipStage, Networks, Role, load_part


def centre_frame(z_0: Tensor) -> Tensor:
    """`b f c h w` -> the centre frame `b c h w`, f // 2."""
    return z_0[:, z_0.shape[1] // 2]


def never_moves(name: str) -> bool:
    """With equal frames, temporal attention returns its value: q and k get no gradient, so nothing may move them."""
    return "temporal.attn.to_q" in name or "temporal.attn.to_k" in name


BASE = Role("base", appearance=centre_frame, frozen=never_moves)


def build(config: TrainConfig) -> ClipStage:
    """From `init_from`: an image file (inflated at birth), or a base file that is trained on."""
    model, objective = (
        from_table(ClipModel, config.model, "[model]"),
        from_table(ClipLoss, config.loss, "[loss]"),
    )
    first = read_checkpoint(home_folder() / config.init_from, expect_roles=("image", "base"))
    image = read_checkpoint(home_folder() / model.image_file, expect_roles=("image",))
    unet, net = configs(model, first)
    networks = Networks.build(unet, net, image)
    stage = ClipStage(
        BASE, networks, model, objective, ShardDataset(config.data_folder), ShardDataset(config.test_folder)
    )
    stage.start = lambda networks: start(networks, first, config.seed)
    return stage


def configs(model: ClipModel, first: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
    """A base file brings its own; an image file is inflated as the [model] table says."""
    unet = UNetConfig.from_dict(first.configs["unet"])
    if first.role != "image":
        return unet, AppearNetConfig.from_dict(first.configs["appearnet"])
    unet = unet.inflated(injected_norm=model.injected_norm)
    fields = ("injection", "hidden", "spade_norms", "time_conditioned", "text_conditioned")
    return unet, AppearNetConfig(unet, **{name: getattr(model, name) for name in fields})


def start(networks: Networks, first: Checkpoint, seed: int) -> None:
    """The weights at step 0."""
    if first.role == "base":
        load_part(first, "unet", networks.unet)
        load_part(first, "appearnet", networks.appearnet)
        return
    net = networks.appearnet.config
    born = inflate(
        first.part("unet"),
        config=networks.unet.config.as_2d(),
        injection=net.injection,
        seed=seed,
        appearnet={"hidden": net.hidden, "spade_norms": net.spade_norms},
    )
    networks.unet.load_state_dict(born.unet)
    networks.appearnet.load_state_dict(born.appearnet)
