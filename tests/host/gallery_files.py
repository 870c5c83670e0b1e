"""Stand-ins for the published files of the gallery's workflows: the same keys, mostly zeros, small U-Nets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from devtools.check import tiny
from devtools.check.stable_diffusion import (
    SD15_UNET,
    autoencoder_shapes,
    clip_shapes,
    open_clip_shapes,
)
from devtools.release.gallery.parts import PIA
from microcinema_core.config import UNetConfig
from tests.host.weight_files import Shapes, write_stand_in

FOUR_LEVELS = replace(SD15_UNET, channel_mult=(1, 1, 1, 1), transformer_depth=(1, 0, 0, 0))
"""Stable Diffusion 1.5 with all its levels, by which motion modules are told from those of SDXL."""
SDXL_UNET = UNetConfig(channel_mult=(1, 1, 1), transformer_depth=(0, 2, 10), context_dim=2048).as_2d()
"""SDXL's transformer depths, with the same width at every level."""


def write_gallery_files(models: Path, inputs: Path) -> None:
    """Write all files but those of whole video models (tests/host/video_model_files.py)."""
    write_sd15(models / "checkpoints" / "v1-5-pruned-emaonly-fp16.safetensors")
    write_sdxl(models / "checkpoints" / "sd_xl_base_1.0.safetensors")
    write_controlnet(models / "controlnet" / "control_v11p_sd15_canny_fp16.safetensors")
    write_lora(models / "loras" / "MoXinV1.safetensors")
    write_upscaler(models / "upscale_models" / "RealESRGAN_x4plus.safetensors")
    write_film(inputs / "motion.mp4")
    write_motion_files(models)


def _shapes(config: UNetConfig) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tiny.unet_weights(config).items()}


def write_sd15(path: Path) -> None:
    """Write Stable Diffusion 1.5 with a random U-Net of one width."""
    write_stand_in(path, tiny.unet_weights(FOUR_LEVELS), {**clip_shapes(), **autoencoder_shapes()})


def write_sdxl(path: Path) -> None:
    """Write SDXL: two text encoders and depths up to ten; the transformers are zeros."""
    moved = {"cond_stage_model.transformer": "conditioner.embedders.0.transformer"}
    small = {key.replace(*next(iter(moved.items()))): shape for key, shape in clip_shapes().items()}
    large = {
        key.replace("cond_stage_model.model", "conditioner.embedders.1.model"): shape
        for key, shape in open_clip_shapes(1280, 32).items()
    }
    embedding: Shapes = {"label_emb.0.0.weight": (1280, 2816), "label_emb.0.2.weight": (1280, 1280)}
    embedding |= {f"{key.removesuffix('weight')}bias": (1280,) for key in list(embedding)}
    unet = {
        f"model.diffusion_model.{key}": shape for key, shape in {**_shapes(SDXL_UNET), **embedding}.items()
    }
    write_stand_in(path, {}, {**unet, **small, **large, **autoencoder_shapes()})


def write_controlnet(path: Path) -> None:
    """A ControlNet of that U-Net's encoder; its last convolutions act, so that hints matter."""
    unet = tiny.unet_weights(FOUR_LEVELS, 3)
    tensors = {
        key: value
        for key, value in unet.items()
        if key.startswith(("input_blocks", "middle_block", "time_embed"))
    }
    width = SD15_UNET.model_channels
    blocks = len({key.split(".")[1] for key in tensors if key.startswith("input_blocks")})
    generator = torch.Generator().manual_seed(4)

    def conv(name: str, out: int, into: int, size: int) -> None:
        tensors[f"{name}.weight"] = (
            torch.randn(out, into, size, size, generator=generator) * 0.2 / size / into**0.5
        )
        tensors[f"{name}.bias"] = torch.zeros(out)

    for number in range(blocks):
        conv(f"zero_convs.{number}.0", width, width, 1)
    conv("middle_block_out.0", width, width, 1)
    for number, (into, out) in enumerate(
        [(3, 16), (16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256)]
    ):
        conv(f"input_hint_block.{2 * number}", out, into, 3)
    conv("input_hint_block.14", width, 256, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"control_model.{key}": value.half() for key, value in tensors.items()}, str(path))


def write_lora(path: Path) -> None:
    """A LoRA in kohya's keys on one attention of the U-Net."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    generator = torch.Generator().manual_seed(6)
    tensors = {
        f"{name}.lora_down.weight": torch.randn(4, SD15_UNET.model_channels, generator=generator) * 0.1,
        f"{name}.lora_up.weight": torch.randn(SD15_UNET.model_channels, 4, generator=generator) * 0.1,
        f"{name}.alpha": torch.tensor(4.0),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))


def write_upscaler(path: Path) -> None:
    """A Real-ESRGAN of one block, four times the size."""
    generator = torch.Generator().manual_seed(7)
    tensors: dict[str, Tensor] = {}

    def conv(name: str, out: int, into: int) -> None:
        tensors[f"{name}.weight"] = torch.randn(out, into, 3, 3, generator=generator) * 0.1 / into**0.5
        tensors[f"{name}.bias"] = torch.full((out,), 0.1)

    conv("conv_first", 8, 3)
    for part in (1, 2, 3):
        for layer in range(1, 6):
            conv(f"body.0.rdb{part}.conv{layer}", 8 if layer == 5 else 32, 8 + 32 * (layer - 1))
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        conv(name, 8, 8)
    conv("conv_last", 3, 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))


def write_motion_files(models: Path) -> None:
    """Write AnimateDiff version 3, PIA and SparseCtrl for that U-Net, with random weights in diffusers' layout."""
    from diffusers import MotionAdapter, SparseControlNetModel

    side = FOUR_LEVELS.model_channels
    widths, levels = (side,) * 4, FOUR_LEVELS.transformer_depth
    motion: dict[str, Any] = {
        "block_out_channels": widths,
        "motion_layers_per_block": 1,
        "use_motion_mid_block": False,
    }
    with torch.device("meta"):
        module = MotionAdapter(**motion)
        pia = MotionAdapter(**motion, conv_in_channels=9)
        sparse = SparseControlNetModel(
            block_out_channels=widths,
            layers_per_block=1,
            down_block_types=tuple(
                "CrossAttnDownBlockMotion" if depth else "DownBlockMotion" for depth in levels
            ),
            cross_attention_dim=FOUR_LEVELS.context_dim,
            attention_head_dim=8,
            motion_num_attention_heads=8,
            conditioning_channels=4,
            concat_conditioning_mask=True,
            use_simplified_condition_embedding=True,
        )
    for folder, name, net in (
        ("animatediff_models", "mm_sd15_v3.safetensors", module),
        ("animatediff_models", PIA, pia),
        ("controlnet", "mm_sd15_v3_sparsectrl_rgb.safetensors", sparse),
    ):
        path = models / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {
            key: value.half() for key, value in tiny.random_weights(net).items() if "pos_embed" not in key
        }
        positions = {key: value for key, value in net.state_dict().items() if "pos_embed" in key}
        weights |= {key: torch.zeros(value.shape, dtype=torch.float16) for key, value in positions.items()}
        save_file(weights, str(path))


def write_film(path: Path) -> None:
    """Sixteen frames of a square that moves to the right."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(16):
            page = np.full((64, 96, 3), 40, np.uint8)
            page[20:44, 4 * number : 4 * number + 24] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(page, format="rgb24")))
        container.mux(stream.encode(None))
