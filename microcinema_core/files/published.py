"""Published weights of AnimateDiff's formats under MicroCinema's keys: motion modules, PIA, SparseCtrl, motion LoRAs.

Formats: guoyww/AnimateDiff (animatediff/models/motion_module.py, sparse_controlnet.py), diffusers (MotionAdapter,
SparseControlNetModel), openmmlab/PIA. Every key of a file is accounted for; a file of another kind is refused with a
sentence that says what it is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..config import CONTEXT_LENGTH, NUMBERED_FRAMES, TEMPORAL_LAYOUTS, AppearNetConfig, Betas, UNetConfig
from ..messages import one_line
from ..values import shown
from .safetensors_io import (
    LARGEST_WEIGHT,
    LDM_PREFIX,
    Shapes,
    describe,
    header_shapes,
    read_header,
    read_tensors,
    whole,
    within,
)
from .stable_diffusion import from_diffusers, levels_of

_PREFIXES = ("module.", LDM_PREFIX, "diffusion_model.", "unet.", "motion_model.", "controlnet.")
_PLACE = re.compile(r"(down|up|mid)_block(?:s\.(\d+))?\.motion_modules\.(\d+)\.(.+)")
_POSITIONS = re.compile(r"pos_(encoder|embed)\.pe$")
log = logging.getLogger(__name__)
_RGB = "mm_sd15_v3_sparsectrl_rgb.safetensors"
_V3 = "mm_sd15_v3.safetensors"


@dataclass(frozen=True)
class MotionModule:
    """A motion module for a U-Net.

    Attributes:
        config: the U-Net's configuration with the module's temporal layout.
        temporal: the temporal layers' tensors under the U-Net's keys.
        appearnet_config, appearnet: PIA's AppearNet, which widens the first convolution; None for AnimateDiff.
        name: the file's name, for messages.
        betas: form of the noise schedule that it was trained with.
    """

    config: UNetConfig
    temporal: dict[str, Tensor]
    appearnet_config: AppearNetConfig | None = None
    appearnet: dict[str, Tensor] | None = None
    name: str = ""
    betas: Betas = "linear"


@dataclass(frozen=True)
class SparseCtrl:
    """SparseCtrl as an AppearNet: its configuration, its tensors under AppearNet's keys, and the file's name."""

    config: AppearNetConfig
    weights: dict[str, Tensor]
    name: str = ""


def read_motion_module(path: Path, unet: UNetConfig) -> MotionModule:
    """Read a motion module of AnimateDiff version 2 or 3, or PIA's, for a U-Net.

    Args:
        path: a safetensors file in the original layout or in diffusers'.
        unet: configuration of the Stable Diffusion U-Net that it is to move.

    Raises:
        ValueError: a file of another kind, or one whose keys or shapes do not fit the U-Net.
    """
    with whole(path):
        tensors = _read(path, "motion")
        conv_in = {key: tensors.pop(key) for key in ("conv_in.weight", "conv_in.bias") if key in tensors}
        layout = "animatediff_v2" if any(key.startswith("mid_block.") for key in tensors) else "animatediff"
        config = unet.as_2d().inflated(**TEMPORAL_LAYOUTS[layout])
        temporal = {_motion_key(key, config, config.temporal_attentions): t for key, t in tensors.items()}
        appearnet_config, appearnet = _pia(conv_in["conv_in.weight"], unet) if conv_in else (None, None)
    return MotionModule(config, temporal, appearnet_config, appearnet, one_line(path.name))


def _warn_of_no_positions(path: Path, keys: Iterable[str]) -> None:
    """Log a line where version 1 cannot be told from version 3: without a table of positions and a middle."""
    if not any(_POSITIONS.search(key) or _bare(key).startswith("mid_block.") for key in keys):
        log.warning(
            "MicroCinema: %s has no table of positions; it is taken for AnimateDiff version 3. If the video is noise, "
            "it may be version 1: get %s.",
            one_line(path.name),
            _V3,
        )


def _pia(conv_in: Tensor, unet: UNetConfig) -> tuple[AppearNetConfig, dict[str, Tensor]]:
    """Return PIA's AppearNet from its first convolution, and its configuration.

    PIA's channels are [noisy latents, affinity, latents]; ours are [latents, affinity].

    Raises:
        ValueError: another number of channels.
    """
    latents = unet.in_channels
    if conv_in.ndim != 4 or conv_in.shape[1] != 2 * latents + 1:
        raise ValueError(
            f"conv_in.weight has shape {tuple(conv_in.shape)}; PIA's takes {2 * latents + 1} channels: get it again."
        )
    weight = conv_in[:, [*range(latents + 1, 2 * latents + 1), latents]]
    config = AppearNetConfig(unet.as_2d(), injection="concat", hint="affinity")
    return config, {"concat.weight": weight, "concat.bias": weight.new_zeros(weight.shape[0])}


def read_sparsectrl(path: Path) -> SparseCtrl:
    """Read SparseCtrl's RGB encoder as an AppearNet of the injection "add_dec".

    Its noisy input is zeros always, so that its two first convolutions are one.

    Raises:
        ValueError: a file of another kind, or one with keys of no SparseCtrl encoder.
    """
    with whole(path):
        config, weights = _sparsectrl(_read(path, "sparsectrl"))
    return SparseCtrl(config, weights, one_line(path.name))


def _sparsectrl(tensors: dict[str, Tensor]) -> tuple[AppearNetConfig, dict[str, Tensor]]:
    webui = "input_hint_block.0.weight" in tensors
    heads = {name: tensors.pop(key) for key in list(tensors) if (name := _head_key(key)) is not None}
    motion = {key: tensors.pop(key) for key in list(tensors) if ".motion_modules." in key}
    first, hint = (
        ("input_blocks.0.0", "input_hint_block.0") if webui else ("conv_in", "controlnet_cond_embedding")
    )
    tensors[f"{first}.weight"] = tensors.pop(f"{hint}.weight")
    bias = tensors[f"{first}.bias"].float() + tensors.pop(f"{hint}.bias").float()
    tensors[f"{first}.bias"] = bias.to(tensors[f"{first}.weight"].dtype)
    spatial = tensors if webui else from_diffusers(tensors)
    encoder = _encoder_config(spatial)
    unet = UNetConfig.from_dict({**encoder.as_2d().to_dict(), "in_channels": encoder.out_channels})
    config = AppearNetConfig(
        unet,
        injection="add_dec",
        time_conditioned=True,
        text_conditioned=True,
        own_encoder=encoder,
        hint="given",
        between="zeros",
    )
    layers = {_motion_key(key, encoder, encoder.temporal_attentions): value for key, value in motion.items()}
    empty = torch.zeros(CONTEXT_LENGTH, encoder.context_dim, dtype=heads["middle_add.weight"].dtype)
    inside = {f"encoder.{key}": value for key, value in {**spatial, **layers}.items()}
    return config, {**inside, **heads, "empty_prompt": empty}


def add_motion_lora(
    temporal: Mapping[str, Tensor], path: Path, config: UNetConfig, strength: float
) -> dict[str, Tensor]:
    """Return the tensors of a motion module with a motion LoRA added: W + strength * up @ down.

    Args:
        temporal: `MotionModule.temporal`; not changed.
        path: the LoRA's file.
        config: `MotionModule.config`.
        strength: factor of the LoRA.

    Raises:
        ValueError: a file of another kind, or one for other layers than the module has.
    """
    with whole(path):
        return _with_lora(temporal, _read(path, "motion LoRA"), config, strength)


def _with_lora(
    temporal: Mapping[str, Tensor], tensors: Mapping[str, Tensor], config: UNetConfig, strength: float
) -> dict[str, Tensor]:
    if config.temporal_at != "levels_and_middle":
        raise ValueError(
            "motion LoRAs belong to AnimateDiff version 2 (mm_sd15_v2.safetensors) and files made from it; the motion "
            "file is version 3 or PIA: choose the other, or no motion LoRA."
        )
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(
            r"(.+?)(?:\.processor)?\.(to_q|to_k|to_v|to_out)_lora\.(up|down)\.weight", _dotted(key)
        )
        if match is None:
            raise ValueError(
                f"...{shown(key[-40:])} is no key of a motion LoRA of AnimateDiff version 2 in the original layout; "
                "this is another format or another kind of LoRA."
            )
        module, projection, side = match.groups()
        target = f"{module}.{projection}{'.0' if projection == 'to_out' else ''}.weight"
        pairs.setdefault(target, {})[side] = tensor
    answer = dict(temporal)
    for place, pair in pairs.items():
        key = _motion_key(place, config, config.temporal_attentions)
        if key not in answer or set(pair) != {"up", "down"}:
            raise ValueError(
                f"it changes {shown(key)}, which this motion module does not have; motion LoRAs belong to "
                "AnimateDiff version 2 (mm_sd15_v2.safetensors)."
            )
        weight, up, down = answer[key], pair["up"].float(), pair["down"].float()
        if up.ndim != 2 or (up.shape[0], *down.shape) != (weight.shape[0], up.shape[1], weight.shape[1]):
            raise ValueError(
                f"it changes {shown(key)} of shape {tuple(weight.shape)} by matrices of shapes {tuple(up.shape)} and "
                f"{tuple(down.shape)}, which do not fit: get the file again."
            )
        answer[key] = (weight.float() + strength * (up @ down)).to(weight.dtype)
        if not within(answer[key]):
            raise ValueError(
                f"with a strength of {strength:g}, it changes {shown(key)} beyond {LARGEST_WEIGHT:g}, the largest "
                "weight: get the file again, or lower the strength."
            )
    return answer


def kind_of(shapes: Shapes) -> str:
    """Return what a file is: "motion", "sparsectrl", "motion LoRA", or a description of another kind of file.

    Keys may have prefixes.
    """
    keys = {_bare(key): shape for key, shape in shapes.items()}
    if "input_blocks.0.0.weight" in keys and any(".motion_modules." in key for key in keys):  # WebUI's layout
        if "input_hint_block.0.weight" in keys:
            return "sparsectrl"
        return f"SparseCtrl for scribbles or pixels: get the one for pictures, {_RGB}"
    lora = any("lora" in key for key in keys)
    motion = any(re.search(r"[._]motion_modules[._]", key) for key in keys)
    if lora:
        return "motion LoRA" if motion else "a LoRA of the image model: load it with the stock Load LoRA node"
    if any(".temporal_attentions." in key for key in keys):
        return f"a Hotshot-XL motion module: get {_V3}, for Stable Diffusion 1.5"
    if any(key.startswith("controlnet_cond_embedding.") for key in keys):
        if "controlnet_cond_embedding.weight" in keys:
            return "sparsectrl"
        return f"SparseCtrl for scribbles or pixels: get the one for pictures, {_RGB}"
    if not motion:
        return describe(shapes)
    if not any(key.startswith("down_blocks.3.") for key in keys):
        return f"a motion module for SDXL: get {_V3}, for Stable Diffusion 1.5"
    if any(_POSITIONS.search(key) and shape[1] < NUMBERED_FRAMES for key, shape in keys.items()):
        return f"a motion module of AnimateDiff version 1: get version 3, {_V3}"
    return "motion"


def refuse_pickle(name: str, instead: str | None = None) -> None:
    """Refuse a file by its name alone where it is a pickle, which is never opened.

    Args:
        name: the file's name.
        instead: the safetensors file to get; None takes that of the same use among AnimateDiff's.

    Raises:
        ValueError: the name ends as those of PyTorch's pickles do; the message names the safetensors file to get.
    """
    stem, dot, ending = name.replace("\\", "/").rpartition("/")[2].rpartition(".")
    if not dot or ending.lower() not in ("ckpt", "pt", "pth", "bin"):
        return
    twin = instead or _TWINS.get(stem, f"the same weights as a safetensors file, such as {_V3}")
    raise ValueError(
        f"{one_line(name)}: a .{ending} file is a pickle, which can run code as it opens and is never read: "
        f"get {twin}."
    )


_PIA = "diffusion_pytorch_model.fp16.safetensors of openmmlab/PIA-condition-adapter"
_TWINS = {
    "v3_sd15_mm": _V3,
    "v3_sd15_sparsectrl_rgb": _RGB,
    "v3_sd15_sparsectrl_scribble": _RGB,
    "v3_sd15_adapter": "mm_sd15_v3_adapter.safetensors",
    "mm_sd_v15_v2": "mm_sd15_v2.safetensors",
    "mm_sd_v14": _V3,
    "mm_sd_v15": _V3,
    "pia": _PIA,
    "mm_sdxl_v10_beta": _V3,
    "AnimateLCM_sd15_t2v": "mm_sd15_AnimateLCM.safetensors",
    **{
        f"v2_lora_{movement}": f"mm_sd15_v2_lora_{movement}.safetensors"
        for movement in (
            *("PanLeft", "PanRight", "TiltDown", "TiltUp"),
            *("RollingAnticlockwise", "RollingClockwise", "ZoomIn", "ZoomOut"),
        )
    },
}
"""Names of published pickles without their ending: the file of the same use in safetensors."""
KINDS = {
    "motion": "a motion module of AnimateDiff version 2 or 3, or PIA",
    "sparsectrl": "SparseCtrl for pictures",
    "motion LoRA": "a motion LoRA of AnimateDiff version 2",
}
"""What files are, in words, by `kind_of`."""


def _read(path: Path, kind: str) -> dict[str, Tensor]:
    """Return a file's tensors without prefixes and tables of positions, after checking its kind by the header."""
    header = read_header(path)
    found = kind_of(header_shapes(header))
    if found != kind:
        raise ValueError(f"this is {KINDS.get(found, found)}; here, {KINDS[kind]} was expected.")
    if kind == "motion":
        _warn_of_no_positions(path, header)
    tensors, _ = read_tensors(path, header=header, keep=lambda key: not _POSITIONS.search(key))
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise ValueError(
                f"{shown(key)} holds {value.dtype} numbers, floating-point weights were expected."
            )
    return {_bare(key): value for key, value in tensors.items()}


def _bare(key: str) -> str:
    """Return a key without the prefixes that training and other tools put before it."""
    while prefix := next((prefix for prefix in _PREFIXES if key.startswith(prefix)), None):
        key = key.removeprefix(prefix)
    return key


def _motion_key(key: str, config: UNetConfig, attentions: int) -> str:
    """Return the U-Net's key of a motion module's key."""
    match = _PLACE.fullmatch(key)
    if match is None:
        raise ValueError(f"{shown(key)} is no key of a motion module.")
    side, block, index, rest = match.groups()
    if side == "mid":
        return f"middle_block.1.temporal.{temporal_transformer_key(rest, attentions)}"
    blocks = config.num_res_blocks + 1
    place = int(block) * blocks + int(index) + (side == "down")
    depths = config.transformer_depth if side == "down" else config.transformer_depth[::-1]
    if int(block) >= len(depths):
        raise ValueError(f"{shown(key)} is at a level that this U-Net does not have.")
    layer = 1 if depths[int(block)] else 0
    inner = temporal_transformer_key(rest, attentions)
    return f"{'input' if side == 'down' else 'output'}_blocks.{place}.{layer}.temporal.{inner}"


def _dotted(key: str) -> str:
    """Return a motion LoRA's key with dots, from the form of AnimateDiff's WebUI extension since version 2."""
    match = re.fullmatch(
        r"(mid_block|(?:down|up)_blocks_\d+)_motion_modules_(\d+)_temporal_transformer_transformer_blocks_(\d+)"
        r"_attention_blocks_(\d+)_(to_[qkv]|to_out)(?:_0)?\.lora_(up|down)\.weight",
        key,
    )
    if match is None:
        return key
    side, module, block, attention, projection, way = match.groups()
    side = re.sub(r"_(\d+)$", r".\1", side)
    inside = f"temporal_transformer.transformer_blocks.{block}.attention_blocks.{attention}"
    return f"{side}.motion_modules.{module}.{inside}.processor.{projection}_lora.{way}.weight"


def temporal_transformer_key(rest: str, attentions: int) -> str:
    """Return a temporal transformer's key from the original's or diffusers' name of it."""
    rest = rest.removeprefix("temporal_transformer.").removeprefix("transformer_blocks.0.")
    rest = rest.replace("attention_blocks.", "attns.")
    for number in (1, 2):
        rest = rest.replace(f"attn{number}.", f"attns.{number - 1}.").replace(
            f"norm{number}.", f"norms.{number - 1}."
        )
    return rest.replace("ff_norm.", f"norms.{attentions}.").replace("norm3.", f"norms.{attentions}.")


def _head_key(key: str) -> str | None:
    """Return AppearNet's key of one of SparseCtrl's output convolutions."""
    if match := re.fullmatch(r"(?:controlnet_down_blocks|zero_convs)\.(\d+)(?:\.0)?\.(weight|bias)", key):
        return f"skip_add.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"(?:controlnet_mid_block|middle_block_out\.0)\.(weight|bias)", key):
        return f"middle_add.{match[1]}"
    return None


def _encoder_config(spatial: Mapping[str, Tensor]) -> UNetConfig:
    """Return the configuration of SparseCtrl's encoder from its tensors, under LDM keys."""
    first = spatial["input_blocks.0.0.weight"]
    levels = levels_of(spatial)
    if any(not width or not blocks for width, blocks, _ in levels):
        raise ValueError("the encoder lacks ResBlocks: get the file again.")
    context = spatial["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    return UNetConfig(
        in_channels=first.shape[1],
        out_channels=first.shape[1] - 1,
        model_channels=first.shape[0],
        channel_mult=tuple(width // first.shape[0] for width, _, _ in levels),
        num_res_blocks=levels[0][1],
        transformer_depth=tuple(depth for _, _, depth in levels),
        context_dim=context,
        num_heads=8,
        num_head_channels=-1,
        use_linear_in_transformer=False,
        **TEMPORAL_LAYOUTS["sparsectrl"],
    )
