"""A Stable Diffusion file or diffusers folder in the host's folders becomes MODEL and APPEARNET."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..checkpoint import Checkpoint
from ..config import Injection
from ..inflate import LDM_PREFIX, from_diffusers, guess_prediction, inflate
from ..safefile import describe, read_tensors
from ..schedule import Prediction
from .loading import Loaded, build_appearnet, build_model

TEMPORAL_LAYOUTS: dict[str, dict[str, Any]] = {
    "paper": {"temporal_conv": "per_conv", "temporal_attention": "self", "position_encoding": "sinusoidal"},
    "donor": {
        "temporal_conv": "per_resblock",
        "temporal_attention": "transformer",
        "position_encoding": "none",
    },
}
"""Where the layers over time go: after each convolution and attention, or as in published motion weights."""

UNTRAINED_FPS, UNTRAINED_FRAMES = 2.0, 9
"""What the paper's base model makes; an inflated model takes it on until it is trained."""


def inflate_checkpoint(
    path: Path, *, injection: str, temporal_layout: str, prediction: str = "auto"
) -> Loaded:
    """Return MODEL and APPEARNET of a Stable Diffusion 1.x or 2.x file or diffusers folder, untrained.

    Its lambda is 0: a network that never saw the noise prior is right only without it.

    Raises:
        ValueError: no such file, no Stable Diffusion 1.x or 2.x, or keys that this U-Net does not have.
    """
    spatial, said = _read_folder(path) if path.is_dir() else (_read_file(path), None)
    try:
        born = inflate(spatial, injection=cast(Injection, injection), **TEMPORAL_LAYOUTS[temporal_layout])
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    strangers = sorted(set(spatial) - set(born.unet))
    if strangers:
        raise ValueError(
            f"{path.name}: {len(strangers)} keys that Stable Diffusion's U-Net does not have, the first is "
            f"{strangers[0]}; a plain Stable Diffusion 1.x or 2.x was expected."
        )
    predicted = (said or guess_prediction(spatial)) if prediction == "auto" else prediction
    checkpoint = Checkpoint(
        parts={"unet": born.unet, "appearnet": born.appearnet},
        role="unet",
        configs={"unet": born.unet_config.to_dict(), "appearnet": born.appearnet_config.to_dict()},
        lambda_=0.0,
        fps=UNTRAINED_FPS,
        frames=UNTRAINED_FRAMES,
        prediction=cast(Prediction, predicted),
        name=path.name,
    )
    return Loaded(model=build_model(checkpoint), clip=None, vae=None, appearnet=build_appearnet(checkpoint))


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
