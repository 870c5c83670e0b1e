"""A Stable Diffusion 1.x / 2.x U-Net becomes a MicroCinema U-Net and AppearNet (section 3.1).

Spatial keys and tensors are the checkpoint's own. The layers over time and the injection are new and start as nothing,
so the result is the image model, frame by frame, until it is trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import AppearNetConfig, InjectionKind, UNetConfig
from ..diffusion.schedule import Prediction
from ..networks.appearnet import AppearNet
from ..networks.unet import UNet3D, is_temporal

StateDict = dict[str, Tensor]
LDM_PREFIX = "model.diffusion_model."
_STARTS_AT_ZERO = re.compile(
    r"(temporal\.conv|temporal\.attn\.to_out\.0|temporal\.convs\.3|temporal\.proj_out|^concat|_add\.\d+|^middle_add"
    r"|^spade\.\w+\.out)\.(weight|bias)$|^empty_prompt$"
)


@dataclass(frozen=True)
class Inflated:
    """Two networks at birth: configs and state dicts."""

    unet_config: UNetConfig
    appearnet_config: AppearNetConfig
    unet: StateDict
    appearnet: StateDict


def inflate(
    spatial: Mapping[str, Tensor],
    *,
    config: UNetConfig | None = None,
    injection: InjectionKind = "spade",
    seed: int = 0,
    appearnet: dict[str, Any] | None = None,
    **temporal: Any,
) -> Inflated:
    """Inflates a 2D U-Net with LDM keys (no prefix).

    config: its shape, read off the tensors where not given. injection: a row of Table 2. seed: of the few new tensors
    that do not start at zero. appearnet: further fields of AppearNetConfig. temporal: fields of UNetConfig, such as
    temporal_conv. Raises ValueError where the tensors are no Stable Diffusion 1.x / 2.x U-Net.
    """
    config = (config or config_of(spatial)).inflated(**temporal)
    net_config = AppearNetConfig(config, injection=injection, **(appearnet or {}))
    generator = torch.Generator().manual_seed(seed)
    dtype = next(iter(spatial.values())).dtype
    with torch.device("meta"):
        unet_shapes, net_shapes = UNet3D(config).state_dict(), AppearNet(net_config).state_dict()
    absent = [key for key in unet_shapes if not is_temporal(key) and key not in spatial]
    if absent:
        raise ValueError(
            f"the checkpoint lacks {len(absent)} of the U-Net's tensors, the first is {absent[0]}; "
            "expected a whole Stable Diffusion 1.x or 2.x checkpoint."
        )
    unet = {
        key: spatial[key] if key in spatial else initial_tensor(key, meta.shape, generator, dtype)
        for key, meta in unet_shapes.items()
    }
    inherited = {f"encoder.{key}": tensor for key, tensor in unet.items()}
    net = {
        key: inherited[key].clone() if key in inherited else initial_tensor(key, meta.shape, generator, dtype)
        for key, meta in net_shapes.items()
    }
    return Inflated(config, net_config, unet, net)


def initial_tensor(key: str, shape: torch.Size, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """What a new tensor starts as: zero for last projections and biases, one for norms, else torch's usual uniform."""
    if _STARTS_AT_ZERO.search(key) or (key.endswith("bias") and len(shape) == 1):
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    bound = shape[1:].numel() ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator).to(dtype)


def config_of(sd: Mapping[str, Tensor]) -> UNetConfig:
    """Reads the shape of a 2D U-Net off its tensors (LDM keys). Raises ValueError for other networks."""
    if "label_emb.0.0.weight" in sd:
        raise ValueError(
            "this is an SDXL or unCLIP U-Net (it has label_emb); MicroCinema inflates Stable Diffusion 1.x and 2.x. "
            "Pair SDXL with MicroCinema by using its picture as the centre frame."
        )
    if "input_blocks.0.0.weight" not in sd or "middle_block.1.proj_in.weight" not in sd:
        raise ValueError(
            "no Stable Diffusion U-Net was found: input_blocks.0.0.weight is missing; give an SD 1.x or 2.x file."
        )
    first = sd["input_blocks.0.0.weight"]
    channels = first.shape[0]
    if first.shape[1] != sd["out.2.weight"].shape[0]:
        raise ValueError(
            f"the U-Net takes {first.shape[1]} channels and gives {sd['out.2.weight'].shape[0]}; "
            "this is an inpainting or depth model, expected a plain Stable Diffusion 1.x or 2.x."
        )
    levels = _levels(sd)
    linear = sd["middle_block.1.proj_in.weight"].ndim == 2
    key = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return UNetConfig(
        in_channels=first.shape[1],
        out_channels=first.shape[1],
        model_channels=channels,
        channel_mult=tuple(width // channels for width, _, _ in levels),
        num_res_blocks=levels[0][1],
        transformer_depth=tuple(depth for _, _, depth in levels),
        context_dim=sd[key].shape[1],
        num_heads=-1 if linear else 8,
        num_head_channels=64 if linear else -1,
        use_linear_in_transformer=linear,
    ).as_2d()


def _levels(sd: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
    """(width, ResBlocks, transformer depth) of each level, read along the input blocks."""
    levels, index, width, blocks, depth = [], 1, 0, 0, 0
    while any(f"input_blocks.{index}.0.{end}.weight" in sd for end in ("in_layers.2", "op")):
        if f"input_blocks.{index}.0.op.weight" in sd:
            levels.append((width, blocks, depth))
            blocks = depth = 0
        else:
            width = sd[f"input_blocks.{index}.0.in_layers.2.weight"].shape[0]
            blocks += 1
            pattern = re.compile(rf"input_blocks\.{index}\.1\.transformer_blocks\.(\d+)\.norm1\.weight")
            depth = sum(1 for key in sd if pattern.fullmatch(key))
        index += 1
    return [*levels, (width, blocks, depth)]


def guess_prediction(sd: Mapping[str, Tensor]) -> Prediction:
    """The host's rule for SD 2.x files that do not say (comfy/supported_models.py, SD20.model_type): v-prediction
    checkpoints have a wider spread in one bias of the last transformer."""
    bias = sd.get("output_blocks.11.1.transformer_blocks.0.norm1.bias")
    linear = sd["middle_block.1.proj_in.weight"].ndim == 2
    return "v" if linear and bias is not None and bias.float().std(unbiased=False) > 0.09 else "eps"


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_PLAIN = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def from_diffusers(sd: Mapping[str, Tensor]) -> StateDict:
    """The U-Net of a diffusers folder (unet/*.safetensors) under LDM keys.

    Raises ValueError for a key it cannot place.
    """
    per_level = len({key.split(".")[3] for key in sd if key.startswith("down_blocks.0.resnets.")}) + 1
    return {_ldm_key(key, per_level, sd): tensor for key, tensor in sd.items()}


def _ldm_key(key: str, per_level: int, sd: Mapping[str, Tensor]) -> str:
    module, end = key.rsplit(".", 1)
    if module in _PLAIN:
        return f"{_PLAIN[module]}.{end}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", key):
        kind, j, rest = match.groups()
        place = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(j)}"
        return f"{place}.{_inner(kind, rest)}"
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", key):
        side, i, kind, j, rest = match.groups()
        index = int(i) * per_level + int(j) + (1 if side == "down" else 0)
        place = f"{'input' if side == 'down' else 'output'}_blocks.{index}.{1 if kind == 'attentions' else 0}"
        return f"{place}.{_inner(kind, rest)}"
    if match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(\w+)", key):
        return f"input_blocks.{(int(match[1]) + 1) * per_level}.0.op.{match[2]}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(\w+)", key):
        attends = any(k.startswith(f"up_blocks.{match[1]}.attentions.") for k in sd)
        return f"output_blocks.{(int(match[1]) + 1) * per_level - 1}.{2 if attends else 1}.conv.{match[2]}"
    raise ValueError(f"{key} is no key of a Stable Diffusion 1.x or 2.x U-Net in a diffusers folder.")


def _inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    name, end = rest.rsplit(".", 1)
    return f"{_RESNET[name]}.{end}"
