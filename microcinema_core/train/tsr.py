"""Stage `tsr`: the temporal interpolation model, fine-tuned from the base model (section 3.1).

Five frames between and with two given ones, all noised alike; AppearNet sees the line between the ends in latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..files.checkpoint import Checkpoint
from ..networks.appearnet import adapt_for_tsr, interpolated_appearance
from .config import TrainConfig
from .networks import Networks, own_configs
from .video import Role, VideoStage, build_video_stage


def between_ends(z_0: Tensor) -> Tensor:
    """`b f c h w` -> the line from the first to the last frame, `(b f) c h w`."""
    return interpolated_appearance(z_0[:, 0], z_0[:, -1], z_0.shape[1])


def start(networks: Networks, first: Checkpoint, seed: int) -> None:
    """The weights at step 0."""
    networks.video.load(first)
    if first.role == "base":
        adapt_for_tsr(networks.video.appearnet, torch.Generator().manual_seed(seed))


TSR = Role("tsr", ("base", "tsr"), between_ends, lambda name: False, own_configs, start)


def build(config: TrainConfig) -> VideoStage:
    """From `init_from`: a base file, or a TSR file that is trained on."""
    return build_video_stage(TSR, config)
