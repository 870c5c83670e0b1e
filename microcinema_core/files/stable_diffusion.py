"""The U-Net of a Stable Diffusion 1.x or 2.x file or diffusers folder, under LDM keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..config import Prediction, UNetConfig
from ..messages import one_line
from ..model_spec import ModelSpec, parse_json
from ..values import shown
from .checkpoint import Checkpoint
from .safetensors_io import LDM_PREFIX, describe, header_shapes, read_header, read_tensors, whole


def read_stable_diffusion(path: Path) -> Checkpoint:
    """Read the U-Net of a Stable Diffusion file or folder as a checkpoint of the role "image".

    The prediction is the one that a folder's scheduler states, or else guessed from the weights (`guess_prediction`).

    Raises:
        ValueError: the file is missing, of another model, or a MicroCinema file.
    """
    with whole(path):
        unet, prediction = _read_folder(path) if path.is_dir() else (_read_file(path), None)
        config = config_of(unet)
        spec = ModelSpec("image", prediction=prediction or guess_prediction(unet))
    return Checkpoint({"unet": unet}, spec, {"unet": config.to_dict()}, name=one_line(path.name))


def files_of(path: Path) -> list[Path]:
    """Return the files that are read of a Stable Diffusion file or diffusers folder, in order."""
    if not path.is_dir():
        return [path]
    files = sorted((path / "unet").glob("*.safetensors"))
    settings = path / "scheduler" / "scheduler_config.json"
    kept = [file for file in files if ".fp16." not in file.name] or files
    return [*kept, *([settings] if settings.is_file() else [])]


def _read_file(path: Path) -> dict[str, Tensor]:
    header = read_header(path)
    if "microcinema.format" in header.get("__metadata__", {}):
        raise ValueError("this is a MicroCinema file already: load it with a MicroCinema loader.")
    prefixed = any(key.startswith(LDM_PREFIX) for key in header)
    if prefixed:
        tensors, _ = read_tensors(path, header=header, keep=lambda key: key.startswith(LDM_PREFIX))
        return {key[len(LDM_PREFIX) :]: value for key, value in tensors.items()}
    if "down_blocks.0.resnets.0.norm1.weight" in header:
        return from_diffusers(read_tensors(path, header=header)[0])
    if "input_blocks.0.0.weight" in header:
        return read_tensors(path, header=header)[0]
    kind = describe(header_shapes(header))
    raise ValueError(f"this is {kind}, a Stable Diffusion 1.x or 2.x checkpoint was expected.")


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], Prediction | None]:
    files = [file for file in files_of(folder) if file.suffix == ".safetensors"]
    if not files:
        raise ValueError("no unet/*.safetensors in this folder, a diffusers folder was expected.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(read_tensors(file)[0])
    return from_diffusers(tensors), _stated_prediction(folder / "scheduler" / "scheduler_config.json")


def _stated_prediction(settings: Path) -> Prediction | None:
    """Return the prediction that a scheduler's settings state; None where they do not.

    Raises:
        ValueError: a file that is no JSON object, or another prediction.
    """
    if not settings.is_file():
        return None
    said = parse_json(settings.name, settings.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(said, dict):
        raise ValueError(f"{settings.name} is {shown(said)}; expected a JSON object.")
    name = said.get("prediction_type")
    names: dict[str, Prediction] = {"v_prediction": "v", "epsilon": "eps"}
    if name is not None and name not in names:
        raise ValueError(
            f"{settings.name} says prediction_type {shown(name)}; expected {' or '.join(names)}."
        )
    return None if name is None else names[name]


def config_of(sd: Mapping[str, Tensor]) -> UNetConfig:
    """Infer the configuration of a 2D U-Net from its tensors' shapes, under LDM keys.

    Raises:
        ValueError: the tensors are those of another network, such as SDXL's or an inpainting model's.
    """
    if "label_emb.0.0.weight" in sd:
        raise ValueError(
            "this is an SDXL or unCLIP U-Net (it has label_emb); MicroCinema inflates Stable Diffusion 1.x and 2.x. "
            "Pair SDXL with MicroCinema by using its picture as the centre frame."
        )
    key = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    needed = ("input_blocks.0.0.weight", "middle_block.1.proj_in.weight", "out.2.weight", key)
    if absent := [name for name in needed if name not in sd]:
        raise ValueError(
            f"no Stable Diffusion U-Net was found: {absent[0]} is missing; give an SD 1.x or 2.x file."
        )
    first = sd["input_blocks.0.0.weight"]
    channels = first.shape[0]
    if first.shape[1] != sd["out.2.weight"].shape[0]:
        raise ValueError(
            f"the U-Net takes {first.shape[1]} channels and gives {sd['out.2.weight'].shape[0]}; "
            "this is an inpainting or depth model, expected a plain Stable Diffusion 1.x or 2.x."
        )
    levels = levels_of(sd)
    linear = sd["middle_block.1.proj_in.weight"].ndim == 2
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


def levels_of(sd: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
    """Return (channels, ResBlocks, transformer depth) of each level of the encoder."""
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
    """Guess what a U-Net predicts, as ComfyUI does (comfy/supported_models.py, SD20.model_type).

    In SD 2.x checkpoints with v-prediction, one bias of the last transformer has a larger standard deviation.
    """
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
_UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def from_diffusers(sd: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a U-Net's state dict from a diffusers folder (unet/*.safetensors) under LDM keys.

    Raises:
        ValueError: a key that a Stable Diffusion 1.x or 2.x U-Net does not have.
    """
    per_level = len({key.split(".")[3] for key in sd if key.startswith("down_blocks.0.resnets.")}) + 1
    return {_ldm_key(key, per_level, sd): tensor for key, tensor in sd.items()}


def _ldm_key(key: str, per_level: int, sd: Mapping[str, Tensor]) -> str:
    """Return the LDM key of a diffusers key; `per_level` is the number of input blocks of a level."""
    module, _, end = key.rpartition(".")
    if module in _UNET:
        return f"{_UNET[module]}.{end}"
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
    name, _, end = rest.rpartition(".")
    if name not in _RESNET:
        raise ValueError(
            f"{shown(rest)} is no key of a Stable Diffusion 1.x or 2.x U-Net in a diffusers folder."
        )
    return f"{_RESNET[name]}.{end}"
