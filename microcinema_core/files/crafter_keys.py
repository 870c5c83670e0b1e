"""Keys of video models in ModelScope's layout: from those of their authors and of diffusers to MicroCinema's."""

from __future__ import annotations

import re

from torch import Tensor

from ..values import shown
from .published import temporal_transformer_key
from .stable_diffusion import from_diffusers


def from_authors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the U-Net's tensors under our keys from those of the authors' files."""
    gates = {key.removesuffix(".alpha"): tensors.pop(key) for key in list(tensors) if key.endswith(".alpha")}
    out = {}
    for key, value in tensors.items():
        module = key.removesuffix(".to_v_ip.weight")
        if module in gates and module != key:
            # A learnt gate of the image attention, which is linear in the values.
            value = (value.float() * (gates[module].float().tanh() + 1)).to(value.dtype)
        out[_ldm_key(key)] = value.squeeze(-1) if value.ndim in (3, 5) else value
    return out


_BLOCK = re.compile(r"((?:input|output)_blocks\.\d+|middle_block)\.(\d+)\.(.+)")
_OVER_FRAMES = ("proj_in.", "proj_out.", "transformer_blocks.", "norm.")


def _ldm_key(key: str) -> str:
    if match := re.fullmatch(r"(?:init_attn\.0|input_blocks\.0\.1)\.(.+)", key):
        return f"conv_in_temporal.{temporal_transformer_key(match[1], 2)}"
    if match := re.fullmatch(r"(?:fps_embedding|framestride_embed)\.(.+)", key):
        return f"fps_embed.{match[1]}"
    if match := re.fullmatch(r"(input_blocks\.\d+)\.op\.(\w+)", key):
        return f"{match[1]}.0.op.{match[2]}"
    match = _BLOCK.fullmatch(key)
    if match is None:
        return key
    block, layer, rest = match[1], int(match[2]), match[3]
    if layer == 2 and rest.startswith(_OVER_FRAMES):
        return f"{block}.1.temporal.{temporal_transformer_key(rest, 2)}"
    if layer == 3:  # after the temporal transformer, which is no layer of its own here
        layer = 2
    if match := re.fullmatch(r"temopral_conv\.conv(\d)\.(\d)\.(\w+)", rest):
        return f"{block}.{layer}.temporal.{_stack_place(match[1], match[2])}.{match[3]}"
    return f"{block}.{layer}.{rest}"


def _stack_place(number: str, position: str) -> str:
    """Return the place in a `TemporalConvStack` of a norm, which comes first, or of a convolution, which comes last."""
    return f"{'norms' if position == '0' else 'convs'}.{int(number) - 1}"


_DIFFUSERS = re.compile(
    r"(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?temp_(convs|attentions)\.(\d+)\.(.+)"
)


def from_unet_3d(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the U-Net's tensors under our keys from those of diffusers' UNet3DConditionModel."""
    over_frames = [key for key in tensors if key.startswith("transformer_in.") or _DIFFUSERS.fullmatch(key)]
    temporal = {key: tensors.pop(key) for key in over_frames}
    out = from_diffusers(tensors)
    per_level = len({key.split(".")[3] for key in tensors if key.startswith("down_blocks.0.resnets.")}) + 1
    for key, value in temporal.items():
        out[_diffusers_key(key, per_level)] = value.squeeze(-1) if value.ndim == 5 else value
    return out


def _diffusers_key(key: str, per_level: int) -> str:
    if key.startswith("transformer_in."):
        return f"conv_in_temporal.{temporal_transformer_key(key.removeprefix('transformer_in.'), 2)}"
    side, level, kind, index, rest = _DIFFUSERS.fullmatch(key).groups()  # type: ignore[union-attr]
    attends = kind == "attentions"
    if side == "mid_block":
        place = "middle_block.1" if attends else f"middle_block.{2 * int(index)}"
    else:
        number = int(level) * per_level + int(index) + (side == "down_blocks")
        place = f"{'input' if side == 'down_blocks' else 'output'}_blocks.{number}.{int(attends)}"
    if attends:
        return f"{place}.temporal.{temporal_transformer_key(rest, 2)}"
    match = re.fullmatch(r"conv(\d)\.(\d)\.(\w+)", rest)
    if match is None:
        raise ValueError(f"{shown(key)} is no key of a video model in diffusers' layout.")
    return f"{place}.temporal.{_stack_place(match[1], match[2])}.{match[3]}"
