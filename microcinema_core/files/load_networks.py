"""Networks built from checkpoints for use without ComfyUI, with frozen weights loaded strictly."""

from __future__ import annotations

from typing import Any

import torch

from ..config import AppearNetConfig, UNetConfig
from ..diffusion.image_model import ImageModel
from ..diffusion.video_model import VideoModel
from ..networks.appearnet import AppearNet
from ..networks.text import TextEncoder
from ..networks.unet import UNet3D
from ..networks.vae import FoldedVAE
from .checkpoint import Checkpoint, load_strict


def load_vae(checkpoint: Checkpoint, **made_with: Any) -> FoldedVAE:
    """Build the VAE of a file in float32, with frozen weights.

    Args:
        checkpoint: a file that holds a VAE.
        made_with: `operations`, `dtype` and `device` of the layers.

    Raises:
        ValueError: the file has no VAE, or weights that do not fit its configuration.
    """
    vae = FoldedVAE(checkpoint.config("vae"), **made_with)
    weights = {key: tensor.float() for key, tensor in checkpoint.part("vae").items()}
    load_strict(vae, weights, f"the VAE of {checkpoint.name}")
    return vae.eval().requires_grad_(False)


def load_text_encoder(checkpoint: Checkpoint) -> TextEncoder:
    """Build the text encoder of a file in float32, with frozen weights; errors as for `load_vae`."""
    text = TextEncoder(checkpoint.config("text"))
    load_strict(text, checkpoint.part("text"), f"the text encoder of {checkpoint.name}")
    return text.eval().requires_grad_(False)


def load_image_model(checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32) -> ImageModel:
    """Build the U-Net of an image file for sampling, with frozen weights; otherwise as `load_video_model`."""
    unet = UNet3D(checkpoint.config("unet"))
    load_strict(unet, checkpoint.part("unet"), f"the U-Net of {checkpoint.name}")
    return ImageModel(unet.eval().requires_grad_(False).to(dtype), checkpoint.spec)


def load_video_model(checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32) -> VideoModel:
    """Build the U-Net and AppearNet of a base or TSR file for sampling, with frozen weights.

    Args:
        checkpoint: the file.
        dtype: working precision.

    Raises:
        ValueError: the file lacks one of them, or has weights that do not fit their configuration.
    """
    unet_config, appearnet_config = video_configs(checkpoint)
    unet, appearnet = UNet3D(unet_config), AppearNet(appearnet_config)
    model = VideoModel(unet, appearnet, checkpoint.spec)
    load_video_weights(model, checkpoint)
    for module in (unet, appearnet):
        module.eval().requires_grad_(False).to(dtype)
    return model


def video_configs(checkpoint: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
    """Return the configurations of the U-Net and AppearNet of a base or TSR file; errors as `Checkpoint.config`."""
    return checkpoint.config("unet"), checkpoint.config("appearnet")


def load_video_weights(model: VideoModel, checkpoint: Checkpoint) -> None:
    """Load the weights of a base or TSR file into a model of the same shape; errors as for `load_strict`."""
    load_strict(model.unet, checkpoint.part("unet"), f"the U-Net of {checkpoint.name}")
    load_strict(model.appearnet, checkpoint.part("appearnet"), f"the AppearNet of {checkpoint.name}")
