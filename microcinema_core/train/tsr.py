"""Stage `tsr`: the temporal super-resolution model, fine-tuned from the base model (section 3.1).

A clip has five frames, all noised alike: two given ones and the three between. AppearNet sees the linear interpolation
between the latents of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import AppearNetConfig, UNetConfig
from ..files.checkpoint import Checkpoint
from ..files.load_networks import load_video_weights, video_configs
from ..networks.appearnet import adapt_for_tsr, interpolated_appearance
from .video import VideoStage


class TSRStage(VideoStage):
    """The TSR stage; starts from a base model, or continues a TSR model."""

    role = "tsr"
    starts_from = ("base", "tsr")

    def network_configs(self, start: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
        """Return the configurations of the file.

        Raises:
            ValueError: its weights look at pictures through CLIP vision, of which a window has two.
        """
        unet, appearnet = video_configs(start)
        if appearnet.resampler is not None:
            raise ValueError(
                f"{start.name} looks at one picture through CLIP vision, and a window of TSR has two: start from a "
                "base file with another AppearNet, or interpolate with published weights that look at two"
            )
        return unet, appearnet

    def load_start(self, start: Checkpoint) -> None:
        """Load the file's weights; a base model's AppearNet, trained on equal frames, is adapted."""
        load_video_weights(self.video, start)
        if start.spec.role == "base":
            adapt_for_tsr(self.video.appearnet, torch.Generator().manual_seed(self.seed))

    def appearance(self, z_0: Tensor) -> Tensor:
        """Return clips `b f c h w` interpolated linearly from the first to the last frame: `(b f) c h w`."""
        return interpolated_appearance(z_0[:, 0], z_0[:, -1], z_0.shape[1])

    def is_frozen(self, name: str) -> bool:
        """Return false: AppearNet's frames differ, so all of it gets gradients."""
        return False
