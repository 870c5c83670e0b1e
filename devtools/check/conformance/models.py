"""Small Stable Diffusion U-Nets that the host recognises, and random files of every format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from devtools.check import tiny
from microcinema_core.config import UNetConfig

RANK = 4
"""Rank of the LoRA files."""


Motion = Literal["v3", "v2", "pia", "pia alone", "crafter"]
"""Published weights: AnimateDiff's of version 3 or 2, PIA's, its AppearNet applied or not, and DynamiCrafter."""


@dataclass(frozen=True)
class Family:
    """A small U-Net with Stable Diffusion's keys.

    Attributes:
        name: the family's name in the table.
        config: the U-Net's config.
        size: height and width of the latents.
        stock: the host's class for the full-size model.
        motion: the motion weights that make a video MODEL of it; None inflates it instead.
    """

    name: str
    config: UNetConfig
    size: tuple[int, int]
    stock: str
    motion: Motion | None = None


def _family(
    name: str, stock: str, size: tuple[int, int], *, motion: Motion | None = None, **shape: Any
) -> Family:
    return Family(name, UNetConfig(in_channels=4, out_channels=4, **shape).as_2d(), size, stock, motion)


_SD1: dict[str, Any] = {
    "model_channels": 32,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
}
_LEVELS: dict[str, Any] = {"channel_mult": (1, 2, 4), "num_res_blocks": 1, "transformer_depth": (1, 1, 0)}

FAMILIES = (
    _family("SD 1.x", "SD15", (16, 8), **_SD1, **_LEVELS),
    _family("SD 2.x", "SD20", (8, 8), model_channels=64, context_dim=1024, **_LEVELS),
)
"""SD 1.5 and 2.1 with fewer and narrower blocks: the same attention, projections and contexts."""
_FOUR_LEVELS: dict[str, Any] = {"channel_mult": (1, 2, 4, 4), "transformer_depth": (1, 1, 1, 0)}
ALL_BLOCKS = _family("SD 1.x, all blocks", "SD15", (16, 8), **_SD1, **_FOUR_LEVELS, num_res_blocks=2)
"""SD 1.5 with all its blocks, narrower: for what depends on their number, such as T2I-Adapters."""


def _moving(name: str, motion: Motion, blocks: int) -> Family:
    return _family(name, "SD15", (16, 8), motion=motion, **_SD1, **_FOUR_LEVELS, num_res_blocks=blocks)


PIA = _moving("PIA", "pia", 1)
"""The video MODEL to which every node is applied also where time is short: it has an AppearNet of its own."""
VIDEOS = (
    PIA,
    _moving("AnimateDiff v3", "v3", 2),
    _moving("AnimateDiff v2", "v2", 1),
    _moving("PIA alone", "pia alone", 1),
    _family(
        "DynamiCrafter",
        "SD20",
        (8, 8),
        motion="crafter",
        model_channels=64,
        context_dim=1024,
        **_LEVELS,
    ),
)
"""Video MODELs from published weights: motion modules are for SD 1.5's four levels only, DynamiCrafter is of SD 2.1."""


def register_families() -> None:
    """Make the host's loaders recognise narrow versions of SD 1.x and 2.x."""
    import comfy.supported_models

    for family in FAMILIES:
        wide = getattr(comfy.supported_models, family.stock)
        known = {**wide.unet_config, "model_channels": family.config.model_channels}
        narrow: Any = type(f"Narrow{family.stock}", (wide,), {"unet_config": known})
        comfy.supported_models.models.insert(0, narrow)


def write_files(models: Path, family: Family) -> None:
    """Write all files of a family to `models` and make that the host's only models folder."""
    import folder_paths

    for key in list(folder_paths.folder_names_and_paths):
        extensions = folder_paths.folder_names_and_paths[key][1]
        folder_paths.folder_names_and_paths[key] = ([str(models / key)], extensions)
        (models / key).mkdir(parents=True, exist_ok=True)
    folder_paths.filename_list_cache.clear()
    folder_paths.set_output_directory(str(models / "diffusion_models"))
    for name, seed in (("small", 0), ("other", 1)):
        unet = tiny.unet_weights(family.config, seed)
        file = {f"model.diffusion_model.{key}": value for key, value in unet.items()}
        save_file(file, str(models / "checkpoints" / f"{name}.safetensors"))
    write_loras(models / "loras", family)
    save_file(control_weights(family, 2), str(models / "controlnet" / "control.safetensors"))
    save_file(control_weights(family, 3), str(models / "controlnet" / "control_2.safetensors"))
    if len(family.config.channel_mult) == 4:
        save_file(adapter_weights(family), str(models / "controlnet" / "t2i_adapter.safetensors"))
    save_file(gligen_weights(family), str(models / "gligen" / "gligen.safetensors"))
    torch.save(hypernetwork(family), models / "hypernetworks" / "hyper.pt")


def write_loras(folder: Path, family: Family) -> None:
    """Write LoRAs of attention layers in both key styles, and a LoCon of a ResBlock's convolutions."""
    draw = _Draw(5)
    down = "down_blocks.0.attentions.0"
    width, context = family.config.model_channels, family.config.context_dim
    layers = {
        f"{down}.transformer_blocks.0.attn1.to_q": (width, width),
        f"{down}.transformer_blocks.0.attn2.to_k": (width, context),
        f"{down}.transformer_blocks.0.ff.net.0.proj": (8 * width, width),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_v": (4 * width, context),
    }
    kohya: dict[str, Tensor] = {}
    diffusers: dict[str, Tensor] = {}
    for layer, (out, into) in layers.items():
        a, b = draw(RANK, into), draw(out, RANK)
        name = f"lora_unet_{layer.replace('.', '_')}"
        kohya |= {
            f"{name}.lora_down.weight": a,
            f"{name}.lora_up.weight": b,
            f"{name}.alpha": torch.tensor(4.0),
        }
        diffusers |= {f"unet.{layer}.lora_A.weight": a.clone(), f"unet.{layer}.lora_B.weight": b.clone()}
    locon = {}
    for layer in ("down_blocks_0_resnets_0_conv1", "down_blocks_0_resnets_0_conv2"):
        locon[f"lora_unet_{layer}.lora_down.weight"] = draw(RANK, width, 3, 3)
        locon[f"lora_unet_{layer}.lora_up.weight"] = draw(width, RANK, 1, 1)
    save_file(kohya, str(folder / "kohya.safetensors"))
    save_file(diffusers, str(folder / "diffusers.safetensors"))
    save_file(locon, str(folder / "locon.safetensors"))


def control_weights(family: Family, seed: int) -> dict[str, Tensor]:
    """Return random weights of a ControlNet in Stable Diffusion's own format."""
    import comfy.ops
    from comfy.cldm.cldm import ControlNet

    net = ControlNet(
        hint_channels=3,
        operations=comfy.ops.disable_weight_init,
        device="cpu",
        dtype=torch.float32,
        **{key: value for key, value in stock_shape(family).items() if key != "out_channels"},
    )
    return {f"control_model.{key}": value for key, value in tiny.random_weights(net, seed).items()}


def stock_shape(family: Family) -> dict[str, object]:
    """Return the U-Net's shape as arguments of the host's classes."""
    from microcinema_core.adapter.network import host_unet_config

    shape = host_unet_config(family.config)
    del shape["microcinema"]
    return shape | {"image_size": 32, "use_spatial_transformer": True, "legacy": False}


def adapter_weights(family: Family) -> dict[str, Tensor]:
    """Return random weights of a T2I-Adapter."""
    from comfy.t2i_adapter.adapter import Adapter

    width = family.config.model_channels
    channels = [width, 2 * width, 4 * width, 4 * width]
    net = Adapter(cin=192, channels=channels, nums_rb=2, ksize=1, sk=True, use_conv=False)
    return tiny.random_weights(net, 4)


def gligen_weights(family: Family) -> dict[str, Tensor]:
    """Return random weights of a GLIGEN: gated attention in each transformer, and its position network."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import SpatialTransformer, UNetModel

    try:
        from comfy.gligen import GatedSelfAttentionDense, PositionNet
    except ImportError:
        from comfy.ldm.modules.gligen import GatedSelfAttentionDense, PositionNet
    context = family.config.context_dim
    with torch.device("meta"):
        unet = UNetModel(operations=comfy.ops.disable_weight_init, device="meta", **stock_shape(family))
    out: dict[str, Tensor] = {}
    for name, layer in unet.named_modules():
        if isinstance(layer, SpatialTransformer):
            width = layer.in_channels
            heads = 8 if context == 768 else width // 64
            fuser = GatedSelfAttentionDense(width, context, heads, width // heads)
            weights = tiny.random_weights(fuser, len(out))
            out |= {f"{name}.transformer_blocks.0.fuser.{key}": value for key, value in weights.items()}
    place = tiny.random_weights(PositionNet(context, context), 6)
    return out | {f"position_net.{key}": value for key, value in place.items()}


def hypernetwork(family: Family) -> dict[object, object]:
    """Return a random hypernetwork for the contexts and for two widths of self-attention."""
    draw = _Draw(7)
    widths = (family.config.context_dim, family.config.model_channels, 2 * family.config.model_channels)

    def branch(width: int) -> dict[str, Tensor]:
        return {
            "linear.0.weight": draw(width, width),
            "linear.0.bias": torch.zeros(width),
            "linear.1.weight": draw(width, width),
            "linear.1.bias": torch.zeros(width),
        }

    return {"activation_func": "relu", **{width: [branch(width), branch(width)] for width in widths}}


class _Draw:
    """A source of random tensors with unit gain."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        value = torch.randn(*shape, generator=self.generator)
        return value * torch.Size(shape[1:]).numel() ** -0.5
