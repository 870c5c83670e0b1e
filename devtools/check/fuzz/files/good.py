"""Good small files of every kind and layout, from which the malformed ones are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from devtools.check import crafter_files, tiny
from devtools.check.motion_layouts import in_webui_layout, original_names
from microcinema_core.config import AppearNetConfig, UNetConfig
from microcinema_core.files.checkpoint import write_checkpoint
from microcinema_core.files.safetensors_io import LDM_PREFIX
from microcinema_core.model_spec import ModelSpec

CONTEXT = 768
"""Channels of the text of Stable Diffusion 1.x, by which the nodes know it."""
WIDTHS = (32, 64, 64, 64)
IMAGE = UNetConfig(
    model_channels=32, channel_mult=(1, 2, 2, 2), num_res_blocks=1, transformer_depth=(1, 1, 1, 0), context_dim=CONTEXT,
    num_heads=8, num_head_channels=-1, use_linear_in_transformer=False,
).as_2d()  # fmt: skip
"""Stable Diffusion 1.x's four levels, narrow: the U-Net of the motion files."""
_LORA_PLACE = "temporal_transformer.transformer_blocks.0.attention_blocks"


def write_all(folder: Path) -> None:
    """Write one file, or folder, of each kind."""
    _write_own(folder)
    _write_stable_diffusion(folder)
    _write_motion(folder)
    narrow = replace(crafter_files.UNET, channel_mult=(1, 1), transformer_depth=(1, 0), context_dim=64)
    crafter_files.write_crafter(folder / "dynamicrafter.safetensors", narrow)
    crafter_files.write_crafter(
        folder / "videocrafter.safetensors", replace(narrow, image_context=0, fps_embedding=False)
    )


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, str(path))


def _write_own(folder: Path) -> None:
    """Write the tiny family, and files with one network."""
    tiny.write_family(folder)
    net = AppearNetConfig(tiny.UNET, hidden=16)
    for role, part, weights, config in (
        ("unet", "unet", tiny.unet_weights(tiny.UNET), tiny.UNET),
        ("appearnet", "appearnet", tiny.appearnet_weights(net), net),
    ):
        spec = ModelSpec(role, 0.03, 2.0, 9)
        write_checkpoint(
            folder / f"tiny_{role}.safetensors", {part: weights}, spec=spec, configs={part: config}
        )


def _write_stable_diffusion(folder: Path) -> None:
    """Write a U-Net of Stable Diffusion 1.x with and without its prefix, in diffusers' layout, and as a folder."""
    import diffusers

    unet = {key: value.half() for key, value in tiny.unet_weights(IMAGE).items()}
    others = {
        "first_stage_model.decoder.conv_in.weight": torch.ones(4),
        "model_ema.decay": torch.tensor(1, dtype=torch.int32),
    }
    _save(
        folder / "sd_checkpoint.safetensors",
        {**{LDM_PREFIX + key: value for key, value in unet.items()}, **others},
    )
    _save(folder / "sd_unet.safetensors", unet)
    net: Any = diffusers.UNet2DConditionModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
        attention_head_dim=8,
    )
    state = {key: value.half() for key, value in tiny.random_weights(net).items()}
    _save(folder / "sd_diffusers.safetensors", state)
    whole = folder / "sd_folder"
    _save(whole / "unet" / "diffusion_pytorch_model.safetensors", state)
    for name, said in {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "scheduler/scheduler_config.json": {"prediction_type": "epsilon"},
    }.items():
        (whole / name).parent.mkdir(exist_ok=True)
        (whole / name).write_text(json.dumps(said), encoding="utf-8")


def _write_motion(folder: Path) -> None:
    """Write AnimateDiff versions 3 and 2, PIA, SparseCtrl and a motion LoRA in their layouts."""
    import diffusers

    def adapter(middle: bool, channels: int | None = None) -> dict[str, Tensor]:
        net: Any = diffusers.MotionAdapter(
            block_out_channels=WIDTHS,
            motion_layers_per_block=1,
            use_motion_mid_block=middle,
            conv_in_channels=channels,
        )
        return {key: value.half() for key, value in tiny.random_weights(net).items()}

    control: Any = diffusers.SparseControlNetModel(
        block_out_channels=WIDTHS,
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
    )
    sparse = {key: value.half() for key, value in tiny.random_weights(control).items()}
    _save(folder / "v3.safetensors", adapter(middle=False))
    _save(folder / "v3_original.safetensors", original_names(adapter(middle=False)))
    _save(folder / "v2_original.safetensors", original_names(adapter(middle=True)))
    _save(folder / "v2.safetensors", adapter(middle=True))
    _save(folder / "pia.safetensors", adapter(middle=False, channels=9))
    _save(folder / "sparsectrl.safetensors", sparse)
    _save(folder / "sparsectrl_webui.safetensors", in_webui_layout(sparse))
    _save(folder / "motion_lora.safetensors", _lora(lambda at, end, way: f"{at}.processor.{end}_lora.{way}"))
    _save(folder / "motion_lora_webui.safetensors", _lora(_webui_name))


def _webui_name(at: str, end: str, way: str) -> str:
    inner = "to_out_0" if end == "to_out" else end
    return f"{at}_{inner}".replace(".", "_") + f".lora_{way}"


def _lora(name: Callable[[str, str, str], str]) -> dict[str, Tensor]:
    """Return a motion LoRA of two places under the keys that `name` makes."""
    made = {}
    for place, width in (("down_blocks.0.motion_modules.0", 32), ("mid_block.motion_modules.0", 64)):
        for projection in ("to_q", "to_out"):
            for way, shape in (("down", (2, width)), ("up", (width, 2))):
                key = name(f"{place}.{_LORA_PLACE}.1", projection, way)
                made[f"{key}.weight"] = torch.full(shape, 0.1)
    return made
