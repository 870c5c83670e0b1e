"""Warm start: temporal layers of published motion weights on an image model, and where a file's weights come from.

The base stage then trains the Appearance Noise Prior and AppearNet on top of motion that is learnt already
(`model.motion_from`): a motion module for Stable Diffusion 1.x, or the whole U-Net of a video model that was made from
2.x. The files and their licences are recorded in every file that comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import NUMBERED_FRAMES, AppearNetConfig, UNetConfig
from ..files.checkpoint import Checkpoint
from ..files.crafter import Crafter, UnclearError, read_crafter, refuse_crafter_pickle
from ..files.crafter_specs import SD_2_LICENCE, licence_of
from ..files.published import MotionModule, read_motion_module, refuse_pickle
from ..files.safetensors_io import read_header
from ..messages import one_line
from ..model_spec import UNTRAINED, ModelSpec
from ..networks.unet import is_temporal
from .start_files import is_foreign

_IMAGE_TOKENS = (".to_k_ip.weight", ".to_v_ip.weight")
SOURCES = "microcinema.sources"
"""Metadata entry of trained files: the sources of their weights, a JSON list."""
_LICENCES = {
    "Stable Diffusion 1.x": "CreativeML Open RAIL-M",
    "Stable Diffusion 2.x": SD_2_LICENCE,
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
        licence: its own, where its metadata state one, else that of the original of its kind; for a video model also
            that of the image model that it was made from.
    """

    file: str
    kind: str
    gives: tuple[str, ...]
    licence: str


@dataclass(frozen=True)
class VideoModelMotion(MotionModule):
    """A whole video model, such as ModelScope or DynamiCrafter; with its ways to see pictures where they are kept.

    Attributes:
        spatial: the U-Net's other tensors, which were trained on videos too.
        spec: what the video model was trained for: training goes on with its schedule, prediction and frame rates.
    """

    spatial: dict[str, Tensor] = field(default_factory=dict)
    spec: ModelSpec = UNTRAINED


def read_motion(
    path: Path, start: Checkpoint, *, frames: int, injection: str
) -> tuple[Checkpoint, MotionModule]:
    """Read the motion weights that a config names, for the image model that training starts from.

    Args:
        path: a file of AnimateDiff version 2 or 3, or PIA's; with a Stable Diffusion 2.x model a file of the Crafter
            family or in ModelScope's layout.
        start: the image model.
        frames: frames of a clip.
        injection: kind of the AppearNet that is trained.

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
    refuse = refuse_crafter_pickle if image.use_linear_in_transformer else refuse_pickle
    refuse(path.name)
    if not path.is_file():
        raise ValueError(f"model.motion_from is {path}, which is no file; docs/models.md has the addresses")
    if image.use_linear_in_transformer:
        return _video_model(path, start, image, injection)
    motion = read_motion_module(path, image)
    if motion.config.position_encoding == "absolute" and frames > NUMBERED_FRAMES:
        raise ValueError(
            f"the clips have {frames} frames; {motion.name} has numbers for {NUMBERED_FRAMES}: prepare shorter clips"
        )
    return replace(start, spec=replace(start.spec, betas=motion.betas)), motion


def _video_model(
    path: Path, start: Checkpoint, image: UNetConfig, injection: str
) -> tuple[Checkpoint, VideoModelMotion]:
    """Read a whole video model for training on a Stable Diffusion 2.x model's text encoder and VAE."""
    try:
        read = read_crafter(path)
    except ValueError as error:
        said = f"model.motion_from, for {start.name}, a Stable Diffusion 2.x model: {error}"
        if isinstance(error.__cause__, UnclearError):  # a node asks; a config has no such key
            said = f"{path.name} does not say what it was trained for: give it the name that it was published under"
        raise ValueError(said) from error
    pictures = read.appearnet_config if injection == "concat" else None
    if pictures is not None and pictures.places == "ends":
        raise ValueError(
            f"{read.name} makes the frames between two pictures, and the stage base trains from one: set "
            'model.injection to "spade" for a new AppearNet on its motion'
        )
    if read.config.as_2d() != image.as_2d():
        raise ValueError(
            f"{read.name} does not fit {start.name}, whose U-Net is another one: choose the Stable Diffusion 2.x model "
            "whose text encoder and VAE it was trained with"
        )
    motion = _with_pictures(read) if pictures is not None else _without_pictures(read)
    own = ("prediction", "betas", "zero_terminal_snr", "rates", "rescale", "sampling")
    spec = replace(start.spec, **{name: getattr(read.spec, name) for name in own})
    return replace(start, spec=spec), motion


def _without_pictures(read: Crafter) -> VideoModelMotion:
    """Return a video model's motion, without image tokens: the new AppearNet takes their place."""
    kept = {key: value for key, value in read.unet.items() if not key.endswith(_IMAGE_TOKENS)}
    return _motion_of(read, replace(read.config, image_context=0), kept)


def _with_pictures(read: Crafter) -> VideoModelMotion:
    """Return a video model's motion with its own ways to see a picture: image tokens, and latents beside the noise."""
    return replace(
        _motion_of(read, read.config, read.unet),
        appearnet=read.appearnet,
        appearnet_config=read.appearnet_config,
    )


def _motion_of(read: Crafter, config: UNetConfig, unet: Mapping[str, Tensor]) -> VideoModelMotion:
    return VideoModelMotion(
        config,
        {key: value for key, value in unet.items() if is_temporal(key)},
        name=read.name,
        betas=read.spec.betas,
        spatial={key: value for key, value in unet.items() if not is_temporal(key)},
        spec=read.spec,
    )


def start_configs(
    motion: MotionModule, *, injected_norm: str, appearnet: Mapping[str, Any]
) -> tuple[UNetConfig, AppearNetConfig]:
    """Return the configurations of the two networks.

    AppearNet is that of the motion file where it has one of this injection (PIA, DynamiCrafter: "concat"), else new.

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
    if isinstance(motion, VideoModelMotion):  # nothing of the image model's U-Net is left
        licence = licence_of(motion.spec, _stated(motion_from))
        gives = ("spatial", "temporal", *(("injection",) if own_appearnet(motion, injection) else ()))
        return [Source(one_line(motion_from.name), motion.spec.origin, gives, licence)]
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
    licence = _stated(path) or f"{_LICENCES[kind]} (of the original)"
    return Source(one_line(path.name), kind, gives, licence)


def _stated(path: Path) -> str:
    """Return the licence that a file states, or nothing; a folder of diffusers states none."""
    metadata = {} if path.is_dir() else read_header(path).get("__metadata__", {})
    return metadata.get("modelspec.license") or metadata.get("license") or ""
