"""Stage `base`: the image-and-text-to-video model, inflated from an image model (sections 3.1 to 3.3)."""

from __future__ import annotations

from torch import Tensor

from ..config import AppearNetConfig, UNetConfig, centre_index
from ..files.checkpoint import Checkpoint
from ..files.inflate import inflate
from ..files.load_networks import load_video_weights, video_configs
from .video import VideoStage


class BaseStage(VideoStage):
    """The base stage; starts from an image model, which is inflated, or continues a base model."""

    role = "base"
    starts_from = ("image", "base")

    def network_configs(self, start: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
        """Return the configurations of a base file, or an image file's inflated as the [model] table says."""
        if start.spec.role != "image":
            return video_configs(start)
        unet = UNetConfig.from_dict(start.configs["unet"]).inflated(injected_norm=self.model.injected_norm)
        fields = ("injection", "hidden", "spade_norms", "time_conditioned", "text_conditioned")
        return unet, AppearNetConfig(unet, **{name: getattr(self.model, name) for name in fields})

    def load_start(self, start: Checkpoint) -> None:
        """Load a base file's weights, or inflate an image file's."""
        if start.spec.role == "base":
            load_video_weights(self.video, start)
            return
        net = self.video.appearnet.config
        inflated = inflate(
            start.part("unet"),
            config=self.video.unet.config.as_2d(),
            injection=net.injection,
            seed=self.seed,
            appearnet={"hidden": net.hidden, "spade_norms": net.spade_norms},
        )
        self.video.unet.load_state_dict(inflated.unet)
        self.video.appearnet.load_state_dict(inflated.appearnet)

    def appearance(self, z_0: Tensor) -> Tensor:
        """Return the centre frames `b c h w` of clips `b f c h w`."""
        return z_0[:, centre_index(z_0.shape[1])]

    def is_frozen(self, name: str) -> bool:
        """Return whether a parameter of AppearNet is q or k of temporal attention.

        AppearNet's frames are all equal here. Attention over equal frames returns the value itself, so q and k get no
        gradient.
        """
        return "temporal.attn.to_q" in name or "temporal.attn.to_k" in name
