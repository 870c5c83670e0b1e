"""Stage `base`: the image-and-text-to-video model, inflated from an image model (sections 3.1 to 3.3)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config import TEMPORAL_LAYOUTS, AppearNetConfig, UNetConfig, centre_index
from ..files.checkpoint import Checkpoint
from ..files.inflate import filled, inflate
from ..files.load_networks import load_video_weights, video_configs
from .video import VideoStage
from .video_inputs import require_same_vision, require_vision
from .warm_start import VideoModelMotion, own_appearnet, start_configs, with_motion


class BaseStage(VideoStage):
    """The base stage; starts from an image model, which is inflated, or continues a base model."""

    role = "base"
    starts_from = ("image", "base")

    def network_configs(self, start: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
        """Return the configurations of a base file, or an image file's inflated as the [model] table says."""
        if start.spec.role != "image":
            unet, appearnet = video_configs(start)
            if self.model.appearance_attention:
                unet, own = (replace(config, appearance_attention=True) for config in (unet, appearnet.unet))
                appearnet = replace(appearnet, unet=own)
            return unet, appearnet
        changes = {name: getattr(self.model, name) for name in ("injected_norm", "appearance_attention")}
        unet = UNetConfig.from_dict(start.configs["unet"]).inflated(**changes)
        names = ("injection", "hidden", "spade_norms", "time_conditioned", "text_conditioned")
        fields = {name: getattr(self.model, name) for name in names}
        if self.motion is None:
            return unet, AppearNetConfig(unet, **fields)
        unet, appearnet = start_configs(self.motion, injected_norm=self.model.injected_norm, appearnet=fields)
        if appearnet.resampler is not None:  # the weights get mid grey's features from the data set
            grey = require_vision(self.dataset, appearnet.resampler)
            appearnet = replace(appearnet, resampler=replace(appearnet.resampler, grey=grey))
        return unet, appearnet

    def load_start(self, start: Checkpoint) -> None:
        """Load a base file's weights, or inflate an image file's, with the motion weights where there are any."""
        if start.spec.role == "base":
            load_video_weights(self.video, self._with_attention(start))
            if self.looks:
                require_same_vision(self.dataset, self.video.grey)
            return
        net, unet = self.video.appearnet.config, self.video.unet.config
        inflated = inflate(
            self.motion.spatial if isinstance(self.motion, VideoModelMotion) else start.part("unet"),
            config=unet.as_2d(),
            injection=net.injection,
            seed=self.seed,
            appearnet={"hidden": net.hidden, "spade_norms": net.spade_norms},
            **{name: getattr(unet, name) for name in TEMPORAL_LAYOUTS["paper"]},
        )
        weights, appearnet = inflated.unet, inflated.appearnet
        if self.motion is not None:
            weights = with_motion(weights, self.motion)
            if own_appearnet(self.motion, net.injection):
                appearnet = dict(self.motion.appearnet or {})
                if self.looks:
                    appearnet["grey"] = self.video.grey
            self.motion = None  # its tensors are copied
        self.video.unet.load_state_dict(weights)
        self.video.appearnet.load_state_dict(appearnet)

    def _with_attention(self, start: Checkpoint) -> Checkpoint:
        """Return a base file with initial weights of the layers of `appearance_attention`, where this run adds them."""
        if start.described("unet") == self.video.unet.config:
            return start
        generator, dtype = torch.Generator().manual_seed(self.seed), start.part("unet")["out.2.weight"].dtype
        networks = {"unet": self.video.unet, "appearnet": self.video.appearnet}
        whole = {key: filled(network, start.part(key), generator, dtype) for key, network in networks.items()}
        return replace(start, parts={**start.parts, **whole})

    def appearance(self, z_0: Tensor) -> Tensor:
        """Return the centre frames `b c h w` of clips `b f c h w`."""
        return z_0[:, centre_index(z_0.shape[1])]

    def is_frozen(self, name: str) -> bool:
        """Return whether a parameter of AppearNet is q or k of temporal attention.

        AppearNet's frames are all equal here. Attention over equal frames returns the value itself, so q and k get no
        gradient.
        """
        return "temporal." in name and (".to_q." in name or ".to_k." in name)
