"""Weight files that the shipped workflows ask for by name, small and random."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from devtools import tiny
from devtools.home import ROOT
from microcinema_core.config import UNetConfig

VOCABULARY, TOKENS = 49408, 77

SD21_UNET = UNetConfig(channel_mult=(1, 1), num_res_blocks=1, transformer_depth=(1, 0)).as_2d()
"""Two narrow levels; what the host knows SD 2.x by holds: 320 channels, contexts of 1024, linear projections."""


def write_what_workflows_name(models: Path) -> None:
    """Write the files that the shipped workflows load into the folder `models`; mini ones if none is shipped."""
    if len(list((ROOT / "weights").glob("mini_*.safetensors"))) < 3:
        write_mini_family(models / "microcinema")
    write_stable_diffusion_21(models / "checkpoints" / "v2-1_512-ema-pruned.safetensors")


def write_mini_family(folder: Path) -> None:
    """Write mini_image, mini_base and mini_tsr, a few megabytes each."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_family(folder)
    for file in folder.glob("tiny_*.safetensors"):
        file.replace(file.with_name(file.name.replace("tiny_", "mini_")))


def write_stable_diffusion_21(path: Path) -> None:
    """Write a file with a Stable Diffusion 2.1 checkpoint's keys and shapes; its U-Net has two levels only.

    Text encoder (OpenCLIP ViT-H) and VAE cannot be smaller, as the host builds them at their full size: they
    are holes in a sparse file, zeros that take no room, but for what makes contexts and pictures vary.
    """
    unet = tiny.unet_weights(SD21_UNET)
    filled = {f"model.diffusion_model.{key}": tensor.half() for key, tensor in unet.items()}
    shapes = {**_open_clip_shapes(), **_autoencoder_shapes()}
    generator = torch.Generator().manual_seed(0)
    for key, shape in shapes.items():
        is_norm = ".ln_" in key or ".norm" in key
        if key.endswith(("positional_embedding", "conv_in.weight", "conv_out.weight")):
            filled[key] = 0.1 * torch.randn(shape, generator=generator).half()
        elif is_norm and key.endswith("weight"):
            filled[key] = torch.ones(shape).half()
    write_sparse(path, filled, {key: shape for key, shape in shapes.items() if key not in filled})


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


def _open_clip_shapes(width: int = 1024, layers: int = 24) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (TOKENS, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "token_embedding.weight": (VOCABULARY, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for layer in range(layers):
        shapes |= {
            f"transformer.resblocks.{layer}.{name}": shape
            for name, shape in {
                "ln_1.weight": (width,),
                "ln_1.bias": (width,),
                "attn.in_proj_weight": (3 * width, width),
                "attn.in_proj_bias": (3 * width,),
                "attn.out_proj.weight": (width, width),
                "attn.out_proj.bias": (width,),
                "ln_2.weight": (width,),
                "ln_2.bias": (width,),
                "mlp.c_fc.weight": (4 * width, width),
                "mlp.c_fc.bias": (4 * width,),
                "mlp.c_proj.weight": (width, 4 * width),
                "mlp.c_proj.bias": (width,),
            }.items()
        }
    return {f"cond_stage_model.model.{key}": shape for key, shape in shapes.items()}


def _autoencoder_shapes(latent: int = 4) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, size: int = 3) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into, size, size), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def block(name: str, out: int, into: int) -> None:
        norm(f"{name}.norm1", into)
        conv(f"{name}.conv1", out, into)
        norm(f"{name}.norm2", out)
        conv(f"{name}.conv2", out, out)
        if out != into:
            conv(f"{name}.nin_shortcut", out, into, 1)

    def middle(name: str) -> None:
        block(f"{name}.block_1", 512, 512)
        norm(f"{name}.attn_1.norm", 512)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.attn_1.{part}", 512, 512, 1)
        block(f"{name}.block_2", 512, 512)

    widths = (128, 256, 512, 512)
    conv("encoder.conv_in", 128, 3)
    before = 128
    for level, width in enumerate(widths):
        for number in range(2):
            block(f"encoder.down.{level}.block.{number}", width, before)
            before = width
        if level < 3:
            conv(f"encoder.down.{level}.downsample.conv", width, width)
    middle("encoder.mid")
    norm("encoder.norm_out", 512)
    conv("encoder.conv_out", 2 * latent, 512)
    conv("decoder.conv_in", 512, latent)
    middle("decoder.mid")
    for level in reversed(range(4)):
        for number in range(3):
            block(f"decoder.up.{level}.block.{number}", widths[level], before)
            before = widths[level]
        if level > 0:
            conv(f"decoder.up.{level}.upsample.conv", before, before)
    norm("decoder.norm_out", 128)
    conv("decoder.conv_out", 3, 128)
    conv("quant_conv", 2 * latent, 2 * latent, 1)
    conv("post_quant_conv", latent, latent, 1)
    return {f"first_stage_model.{key}": shape for key, shape in shapes.items()}
