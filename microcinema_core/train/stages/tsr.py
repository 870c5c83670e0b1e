"""Stage `tsr`: the temporal interpolation model, fine-tuned from the base model (section 3.1).

Five frames between and with two given ones, all noised alike; AppearNet sees the line between the ends in latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...appearnet import interpolated_appearance, let_frames_differ
from ...checkpoint import Checkpoint, read_checkpoint
from ...config import AppearNetConfig, UNetConfig
from ...data.paths import home_folder
from ...data.shards import ShardDataset
from ..config import TrainConfig, from_table
from .clips import ClipLoss, ClipModel, ClipStage, Networks, Role, load_part


def between_ends(z_0: Tensor) -> Tensor:
    """`b f c h w` -> the line from the first to the last frame, `(b f) c h w`."""
    return interpolated_appearance(z_0[:, 0], z_0[:, -1], z_0.shape[1])


TSR = Role("tsr", appearance=between_ends, frozen=lambda name: False)


def build(config: TrainConfig) -> ClipStage:
    """From `init_from`: a base file, or a TSR file that is trained on."""
    model, objective = (
        from_table(ClipModel, config.model, "[model]"),
        from_table(ClipLoss, config.loss, "[loss]"),
    )
    first = read_checkpoint(home_folder() / config.init_from, expect_roles=("base", "tsr"))
    image = read_checkpoint(home_folder() / model.image_file, expect_roles=("image",))
    networks = Networks.build(
        UNetConfig.from_dict(first.configs["unet"]),
        AppearNetConfig.from_dict(first.configs["appearnet"]),
        image,
    )
    stage = ClipStage(
        TSR, networks, model, objective, ShardDataset(config.data_folder), ShardDataset(config.test_folder)
    )
    stage.start = lambda networks: start(networks, first, config.seed)
    return stage


def start(networks: Networks, first: Checkpoint, seed: int) -> None:
    """The weights at step 0."""
    load_part(first, "unet", networks.unet)
    load_part(first, "appearnet", networks.appearnet)
    if first.role == "base":
        let_frames_differ(networks.appearnet, torch.Generator().manual_seed(seed))
