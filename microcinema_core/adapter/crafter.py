"""Published video models in ModelScope's layout, such as DynamiCrafter, as MODEL, VAE and APPEARNET."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files.checkpoint import Checkpoint
from ..files.crafter import Crafter, read_crafter
from ..files.crafter_specs import licence_of
from .appearance import AppearNetHandle
from .host import comfy
from .loading import Loaded, MissingPart, build_appearnet, build_model
from .picture import features_of

log = logging.getLogger(__name__)


def load_crafter(path: Path, *, use: str, resolution: str = "auto", clip_vision: Any = None) -> Loaded:
    """Load DynamiCrafter, ToonCrafter, VideoCrafter, ModelScope or ZeroScope.

    Args:
        path: the file.
        use, resolution: as for `read_crafter`.
        clip_vision: the CLIP_VISION that pictures are encoded with; it encodes mid grey for the unguided branch.

    Raises:
        ValueError: as for `read_crafter`, or a CLIP_VISION of another width.
    """
    read = read_crafter(path, use=use, resolution=resolution)
    log.info(
        "MicroCinema: %s is %s. Licence of these weights: %s.",
        read.name,
        read.spec.origin,
        licence_of(read.spec),
    )
    configs = {"unet": read.config.to_dict()}
    checkpoint = Checkpoint({"unet": read.unet}, read.spec, configs, name=read.name)
    return Loaded(
        model=build_model(checkpoint), clip=None, vae=_vae(read), appearnet=_appearnet(read, clip_vision)
    )


def _appearnet(read: Crafter, clip_vision: Any) -> AppearNetHandle | MissingPart:
    if read.appearnet is None or read.appearnet_config is None:
        return MissingPart(
            f"{read.name} is {read.spec.origin}, which makes videos from text and has no AppearNet: use its MODEL with "
            "KSampler, or load DynamiCrafter."
        )
    configs = {"appearnet": read.appearnet_config.to_dict()}
    handle = build_appearnet(Checkpoint({"appearnet": read.appearnet}, read.spec, configs, name=read.name))
    return handle if clip_vision is None else replace(handle, grey=grey_features(clip_vision))


def grey_features(clip_vision: Any) -> Tensor | None:
    """Return the features of a mid-grey picture, which the weights were trained with where they see none."""
    return features_of(clip_vision.encode_image(torch.full((1, 224, 224, 3), 0.5), crop=False))


def _vae(read: Crafter) -> Any:
    if read.vae is None:
        return MissingPart(
            f"{read.name} holds no VAE that ComfyUI can use: take that of any Stable Diffusion 1.5 or 2.1 checkpoint."
        )
    vae = comfy.sd.VAE(sd=dict(read.vae))
    vae.throw_exception_if_invalid()
    return vae
