"""Small random weight files under the names that the shipped workflows load."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from devtools.check import tiny
from devtools.check.stable_diffusion import SD21_UNET, autoencoder_shapes, open_clip_shapes
from devtools.run.home import ROOT
from microcinema_core.config import AppearNetConfig
from microcinema_core.files.checkpoint import write_checkpoint
from microcinema_core.model_spec import ModelSpec

Shapes = dict[str, tuple[int, ...]]
VAE_PATH = re.compile(
    r"first_stage_model\..*(?:conv_in|conv_out|quant_conv|nin_shortcut|sample\.conv)\.weight$"
)
"""Layers of the VAE without a residual connection around them: at zero, all pictures would be grey."""


def write_what_workflows_name(models: Path) -> None:
    """Write the files that the shipped workflows load into the folder `models`; mini ones if none is shipped."""
    if len(list((ROOT / "weights").glob("mini_*.safetensors"))) < 3:
        write_mini_family(models / "microcinema")
    write_stable_diffusion_21(models / "checkpoints" / "v2-1_512-ema-pruned.safetensors")
    write_trained(models / "microcinema")


def write_mini_family(folder: Path) -> None:
    """Write mini_image, mini_base and mini_tsr, a few megabytes each."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_family(folder)
    for file in folder.glob("tiny_*.safetensors"):
        file.replace(file.with_name(file.name.replace("tiny_", "mini_")))


def write_stable_diffusion_21(path: Path) -> None:
    """Write a file with a Stable Diffusion 2.1 checkpoint's keys and shapes; its U-Net has two levels only.

    The host builds the text encoder (OpenCLIP ViT-H) and the VAE at their full size, so they cannot be smaller here.
    Most of their weights are holes in a sparse file: zeros that take no disk space.
    """
    write_stand_in(path, tiny.unet_weights(SD21_UNET), {**open_clip_shapes(), **autoencoder_shapes()})


def write_stand_in(path: Path, unet: Mapping[str, Tensor], shapes: Shapes) -> None:
    """Write a U-Net's weights, the few others that make contexts and pictures vary, and zeros for the rest."""
    filled = {f"model.diffusion_model.{key}": tensor.half() for key, tensor in unet.items()}
    generator = torch.Generator().manual_seed(0)
    for key, shape in shapes.items():
        is_norm = "norm" in key or ".ln_" in key
        if key.endswith(("position_embedding.weight", "positional_embedding")):
            filled[key] = 0.1 * torch.randn(shape, generator=generator).half()
        elif VAE_PATH.match(key):
            filled[key] = (
                torch.randn(shape, generator=generator) / torch.Size(shape[1:]).numel() ** 0.5
            ).half()
        elif is_norm and key.endswith("weight"):
            filled[key] = torch.ones(shape).half()
    write_sparse(path, filled, {key: shape for key, shape in shapes.items() if key not in filled})


def write_trained(folder: Path) -> None:
    """Write sd21_base and sd21_tsr.safetensors, as training from Stable Diffusion 2.1 exports them."""
    folder.mkdir(parents=True, exist_ok=True)
    unet = SD21_UNET.inflated()
    net = AppearNetConfig(unet, hidden=16)
    for role, fps, frames in (("base", 2.0, 9), ("tsr", 8.0, 5)):
        write_checkpoint(
            folder / f"sd21_{role}.safetensors",
            {"unet": tiny.unet_weights(unet), "appearnet": tiny.appearnet_weights(net)},
            spec=ModelSpec(role, 0.03, fps, frames),
            configs={"unet": unet, "appearnet": net},
        )


def write_sparse(path: Path, tensors: Mapping[str, Tensor], zeros: Mapping[str, tuple[int, ...]]) -> None:
    """Write a float16 safetensors file whose tensors `zeros`, given by shape, are holes at its end."""
    header: dict[str, object] = {}
    end = 0
    for key, shape in [(key, tuple(tensor.shape)) for key, tensor in tensors.items()] + list(zeros.items()):
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().numpy().tobytes())
        file.truncate(8 + len(text) + end)
