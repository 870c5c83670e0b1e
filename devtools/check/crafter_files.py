"""Small random files of the Crafter family, under the keys and with the shapes of the published ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from microcinema_core.config import TEMPORAL_LAYOUTS, ResamplerConfig, UNetConfig
from microcinema_core.files.crafter_specs import FRAMES
from microcinema_core.networks.layers import LayerFactory
from microcinema_core.networks.resampler import Resampler

from . import tiny

LDM, RESAMPLER = "model.diffusion_model.", "image_proj_model."
TOKENS = 2
"""Image tokens of a frame in small files; the published ones have 16."""
LAST_PROJECTIONS = (".temporal.convs.3.", "temporal.proj_out.", ".to_v_ip.", "fps_embed.2.")
"""Parts of the keys of the layers that add to the image model: zeros there leave it alone."""
LAYOUT = {**TEMPORAL_LAYOUTS["modelscope"], "image_context": TOKENS, "fps_embedding": True}
UNET = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2, 2, 2),
    num_res_blocks=1,
    context_dim=1024,
    **LAYOUT,
)
CLIP_WIDTH = 1280
"""Channels of the last hidden state of OpenCLIP's ViT-H."""


def resampler_config(unet: UNetConfig = UNET) -> ResamplerConfig:
    """Return a small resampler for a U-Net."""
    return ResamplerConfig(
        tokens=unet.image_context * FRAMES,
        width=32,
        layers=1,
        heads=1,
        in_width=CLIP_WIDTH,
        out_width=unet.context_dim,
    )


def write_crafter(
    path: Path,
    unet: UNetConfig = UNET,
    *,
    spatial: Mapping[str, Tensor] | None = None,
    still: bool = False,
    extra: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a file in the layout of DynamiCrafter, or of VideoCrafter where the U-Net has no image tokens.

    Args:
        path: the file; its name says what `use` and `resolution` "auto" take it for.
        unet: the U-Net's configuration.
        spatial: tensors of the image model to use, under our keys.
        still: write zeros into the last projections, so that the image model stays as it is.
        extra: further tensors of the file.
    """
    weights = {**tiny.unet_weights(unet, 7), **(spatial or {})}
    weights = {
        key: _zero(value, still and any(part in key for part in LAST_PROJECTIONS))
        for key, value in weights.items()
    }
    parts: dict[str, Tensor] = {}
    if unet.image_context:
        generator = torch.Generator().manual_seed(8)
        first = weights["input_blocks.0.0.weight"]
        wide = _zero(0.2 * torch.randn(first.shape, generator=generator), still)
        weights["input_blocks.0.0.weight"] = torch.cat([first, wide], dim=1)
        with torch.device("meta"):
            resampler = Resampler(resampler_config(unet), LayerFactory())
        parts = {RESAMPLER + key: value for key, value in tiny.random_weights(resampler, 9).items()}
    parts |= {LDM + key: value for key, value in authors_keys(weights).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in {**parts, **(extra or {})}.items()}, str(path))
    return path


def _zero(value: Tensor, still: bool) -> Tensor:
    return torch.zeros_like(value) if still else value


def authors_keys(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a U-Net's tensors under the keys of DynamiCrafter's authors, with their shapes."""
    return {authors_key(key, set(weights)): _their_shape(key, value) for key, value in weights.items()}


def authors_key(key: str, keys: set[str]) -> str:
    """Return one such key; `keys` are all of ours, which tell where a temporal transformer moves an upsampler."""
    if key.startswith("conv_in_temporal."):
        return f"init_attn.0.{_their_transformer(key.removeprefix('conv_in_temporal.'))}"
    key = key.replace("fps_embed.", "fps_embedding.")
    if match := re.fullmatch(r"(.+)\.temporal\.(norms|convs)\.(\d)\.(weight|bias)", key):
        block, kind, number, end = match.groups()
        if f"{block}.in_layers.0.weight" in keys:
            place = {"norms": 0, "convs": 2 if number == "0" else 3}[kind]
            return f"{_moved(block, keys)}.temopral_conv.conv{int(number) + 1}.{place}.{end}"
    if match := re.fullmatch(r"(.+)\.1\.temporal\.(.+)", key):
        return f"{match[1]}.2.{_their_transformer(match[2])}"
    block, _, rest = key.partition(".conv.") if ".conv." in key else ("", "", "")
    if block and block.startswith("output_blocks."):
        return f"{_moved(block, keys)}.conv.{rest}"
    return re.sub(r"^middle_block\.2\.", "middle_block.3.", key)


def _moved(block: str, keys: set[str]) -> str:
    """Return the authors' name of a layer: those after a temporal transformer have one more before them."""
    name, _, number = block.rpartition(".")
    after = number == "2" and f"{name}.1.temporal.proj_in.weight" in keys
    return f"{name}.3" if after else block


def _their_transformer(rest: str) -> str:
    if rest.startswith(("proj_", "norm.")):
        return rest
    rest = re.sub(r"^attns\.(\d)", lambda m: f"attn{int(m[1]) + 1}", rest)
    rest = re.sub(r"^norms\.(\d)", lambda m: f"norm{int(m[1]) + 1}", rest)
    return f"transformer_blocks.0.{rest}"


def _their_shape(key: str, value: Tensor) -> Tensor:
    """Return a tensor with the dimensions of the authors' Conv3d over frames and Conv1d of the first transformer."""
    stack = re.search(r"temporal\.convs\.\d\.weight$", key)
    stem = re.fullmatch(r"conv_in_temporal\.proj_(in|out)\.weight", key)
    return value[..., None] if stack or stem else value
