"""The U-Net of a Stable Diffusion 1.x or 2.x file or diffusers folder, under LDM keys: what is inflated."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from ..diffusion.schedule import Prediction
from .inflate import LDM_PREFIX, from_diffusers
from .safetensors_io import describe, read_tensors


def read_unet(path: Path) -> tuple[dict[str, Tensor], Prediction | None]:
    """The U-Net's tensors, and what the model predicts where its folder says so.

    Raises ValueError for no such file, another model, or a MicroCinema file.
    """
    return _read_folder(path) if path.is_dir() else (_read_file(path), None)


def _read_file(path: Path) -> dict[str, Tensor]:
    tensors, metadata = read_tensors(path)
    if "microcinema.format" in metadata:
        raise ValueError(
            f"{path.name}: this is a MicroCinema file already: load it with a MicroCinema loader."
        )
    inner = {key[len(LDM_PREFIX) :]: value for key, value in tensors.items() if key.startswith(LDM_PREFIX)}
    if inner:
        return inner
    if "down_blocks.0.resnets.0.norm1.weight" in tensors:
        return from_diffusers(tensors)
    if "input_blocks.0.0.weight" in tensors:
        return tensors
    kind = describe({key: tuple(value.shape) for key, value in tensors.items()})
    raise ValueError(f"{path.name}: this is {kind}, a Stable Diffusion 1.x or 2.x checkpoint was expected.")


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], Prediction | None]:
    files = sorted((folder / "unet").glob("*.safetensors"))
    files = [file for file in files if ".fp16." not in file.name] or files
    if not files:
        raise ValueError(
            f"{folder.name}: no unet/*.safetensors in this folder, a diffusers folder was expected."
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(read_tensors(file)[0])
    settings = folder / "scheduler" / "scheduler_config.json"
    said = json.loads(settings.read_text()).get("prediction_type") if settings.is_file() else None
    names: dict[str, Prediction] = {"v_prediction": "v", "epsilon": "eps"}
    return from_diffusers(tensors), names.get(str(said))
