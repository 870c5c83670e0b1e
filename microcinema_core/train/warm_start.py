"""Warm start: temporal layers of published motion weights on an image model, and where a file's weights come from.

The base stage then trains the Appearance Noise Prior and AppearNet on top of motion that is learnt already
(`model.motion_from`). The image model, the motion file and their licences are recorded in every file that comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import NUMBERED_FRAMES, AppearNetConfig, UNetConfig
from ..files.checkpoint import Checkpoint
from ..files.published import MotionModule, read_motion_module, refuse_pickle
from ..files.safetensors_io import read_header
from ..messages import one_line
from ..networks.unet import is_temporal
from .start_files import is_foreign

SOURCES = "microcinema.sources"
"""Metadata entry of trained files: the sources of their weights, a JSON list."""
_LICENCES = {
    "Stable Diffusion 1.x": "CreativeML Open RAIL-M",
    "Stable Diffusion 2.x": "CreativeML Open RAIL++-M",
    "AnimateDiff": "Apache-2.0",
    "PIA": "Apache-2.0",
}
"""Licences of the originals; a fine-tune or merge may have another, which only its author knows."""


@dataclass(frozen=True)
class Source:
    """A file whose weights training starts from.

    Attributes:
        file: its name.
        kind: what it is.
        gives: the layers that start from it, by learning-rate group.
        licence: its own, where its metadata state one, else that of the original of its kind.
    """

    file: str
    kind: str
    gives: tuple[str, ...]
    licence: str


def read_motion(path: Path, start: Checkpoint, *, frames: int) -> tuple[Checkpoint, MotionModule]:
    """Read the motion weights that a config names, for the image model that training starts from.

    Args:
        path: a file of AnimateDiff version 2 or 3, or PIA's.
        start: the image model.
        frames: frames of a clip.

    Returns:
        The image model with the noise schedule of the motion weights, and the motion weights.

    Raises:
        ValueError: a file of another kind, a start file that has motion of its own, another image model, or clips
            longer than the weights have frame numbers for.
    """
    if start.spec.role != "image":
        raise ValueError(
            f"model.motion_from is {path.name}, but init_from, {start.name}, has motion of its own (role "
            f"{start.spec.role!r}): leave motion_from out, or start from a Stable Diffusion file"
        )
    image = UNetConfig.from_dict(start.configs["unet"])
    if image.use_linear_in_transformer:
        raise ValueError(
            f"model.motion_from is {path.name}, and init_from, {start.name}, is a Stable Diffusion 2.x model: "
            "AnimateDiff and PIA belong to Stable Diffusion 1.x"
        )
    refuse_pickle(path.name)
    if not path.is_file():
        raise ValueError(f"model.motion_from is {path}, which is no file; docs/models.md has the addresses")
    motion = read_motion_module(path, image)
    if motion.config.position_encoding == "absolute" and frames > NUMBERED_FRAMES:
        raise ValueError(
            f"the clips have {frames} frames; {motion.name} has numbers for {NUMBERED_FRAMES}: prepare shorter clips"
        )
    return replace(start, spec=replace(start.spec, betas=motion.betas)), motion


def start_configs(
    motion: MotionModule, *, injected_norm: str, appearnet: Mapping[str, Any]
) -> tuple[UNetConfig, AppearNetConfig]:
    """Return the configurations of the two networks.

    AppearNet is that of the motion file where it has one of this injection (PIA: "concat"), else a new one.

    Args:
        motion: the motion weights.
        injected_norm: as in `UNetConfig`.
        appearnet: fields of a new AppearNet's configuration.
    """
    fields: dict[str, Any] = {"injected_norm": injected_norm}
    unet = replace(motion.config, **fields)
    if own_appearnet(motion, appearnet["injection"]):
        assert motion.appearnet_config is not None
        return unet, motion.appearnet_config
    return unet, AppearNetConfig(unet, **appearnet)


def own_appearnet(motion: MotionModule | None, injection: str) -> bool:
    """Return whether AppearNet starts from the motion file."""
    found = None if motion is None else motion.appearnet_config
    return found is not None and found.injection == injection


def with_motion(unet: dict[str, Tensor], motion: MotionModule) -> dict[str, Tensor]:
    """Return an inflated U-Net's state dict with the temporal layers of the motion weights.

    Raises:
        ValueError: the motion weights lack temporal layers, or have others, or of other shapes.
    """
    wanted = {key: tensor.shape for key, tensor in unet.items() if is_temporal(key)}
    given = {key: tensor.shape for key, tensor in motion.temporal.items()}
    if wanted != given:
        different = min(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key))
        raise ValueError(
            f"{motion.name} does not fit the U-Net: {different} has shape {_words(given.get(different))}, "
            f"{_words(wanted.get(different))} was expected: choose weights for this image model"
        )
    return {**unet, **motion.temporal}


def _words(shape: torch.Size | None) -> str:
    return "none at all" if shape is None else str(tuple(shape))


def sources(
    init_from: Path, start: Checkpoint, motion: MotionModule | None, motion_from: Path, *, injection: str
) -> list[Source]:
    """Return where a run's weights come from; a trained start file brings its own sources along.

    Args:
        init_from, start: the start file.
        motion, motion_from: the motion weights, and their file; None for new temporal layers.
        injection: AppearNet's kind.
    """
    if start.spec.role != "image":
        return [
            Source(**{**one, "gives": tuple(one["gives"])})
            for one in json.loads(start.metadata.get(SOURCES, "[]"))
        ]
    found = []
    if is_foreign(init_from):
        linear = start.configs["unet"]["use_linear_in_transformer"]
        found.append(_source(init_from, f"Stable Diffusion {'2.x' if linear else '1.x'}", "spatial"))
    if motion is not None:
        gives = ("temporal", "injection") if own_appearnet(motion, injection) else ("temporal",)
        found.append(_source(motion_from, "AnimateDiff" if motion.appearnet is None else "PIA", *gives))
    return found


def sources_entry(found: list[Source]) -> dict[str, str]:
    """Return the metadata entry of a file with these sources; none for weights of our own alone."""
    return {SOURCES: json.dumps([asdict(one) for one in found])} if found else {}


def _source(path: Path, kind: str, *gives: str) -> Source:
    metadata = {} if path.is_dir() else read_header(path).get("__metadata__", {})
    stated = metadata.get("modelspec.license") or metadata.get("license")
    return Source(one_line(path.name), kind, gives, stated or f"{_LICENCES[kind]} (of the original)")
