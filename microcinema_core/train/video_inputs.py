"""What a video stage is given, checked before anything is trained: files, data sets, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..config import ResamplerConfig
from ..diffusion.video_model import VideoModel
from ..messages import one_line
from .batches import Buckets, VideoSet, empty_caption, first_bucket
from .config import TrainConfig

VISION_ROUNDING = 0.02
"""Share of the features by which two computations of them may differ: float16 on disk, other devices."""


def require_fit(
    video: VideoModel,
    sets: Sequence[VideoSet],
    encode_text: Callable[[Tensor], Tensor],
    given: Mapping[str, Any],
) -> None:
    """Refuse data sets that do not fit the networks, and keys of [model] that say something else than the start file.

    Args:
        video: the networks.
        sets: the data sets.
        encode_text: encodes the sets' captions.
        given: the [model] table, as it was given.

    Raises:
        ValueError: names both sides.
    """
    unet, appearnet = video.unet.config, video.appearnet.config
    for key in (
        "injected_norm",
        "injection",
        "hidden",
        "spade_norms",
        "time_conditioned",
        "text_conditioned",
        "appearance_attention",
    ):
        there = getattr(unet if key in ("injected_norm", "appearance_attention") else appearnet, key)
        if key in given and given[key] != there:
            raise ValueError(
                f"model.{key} is {given[key]!r}, but the file that init_from names has {there!r}: networks keep their "
                "shape; leave the key out, or start from an image model"
            )
    for items in sets:
        first = first_bucket(items)
        clip, width = first[0]["mean"], encode_text(empty_caption(items)[None]).shape[-1]
        if clip.ndim != 4 or clip.shape[1] != unet.in_channels or width != unet.context_dim:
            raise ValueError(
                f"the clips in {first.folder} have latents of shape {tuple(clip.shape)} and captions of width {width}; "
                f"the networks take {unet.in_channels} channels, the second number, and width {unet.context_dim}: "
                "encode the clips with the checkpoint that training starts from"
            )
        if appearnet.resampler is not None:
            require_vision(items, appearnet.resampler)


def require_vision(items: VideoSet, resampler: ResamplerConfig) -> int:
    """Return the positions of CLIP vision's features in a set, for weights that look at pictures through it.

    Raises:
        ValueError: clips have no features, or those of another model.
    """
    parts = items.parts if isinstance(items, Buckets) else [items]
    shapes = [(part, shape) for part in parts for shape in part.shapes("vision")]
    found = next((shape[0] for _, shape in shapes if shape), 257)
    wanted = (resampler.grey or found, resampler.in_width)
    for part, shape in shapes:
        if shape != wanted:
            given = "no features" if shape is None else f"features of shape {shape}"
            other = "" if resampler.grey else ', or set model.injection to "spade" for a new AppearNet'
            raise ValueError(
                f"clips in {one_line(part.folder)} have {given} of CLIP vision, through which these weights look at "
                f"pictures; {wanted} was expected: prepare them with --clip-vision{other}"
            )
    for part in parts:
        if part.grey.shape != wanted:
            raise ValueError(
                f"{one_line(part.folder)} holds features of mid grey of shape {tuple(part.grey.shape)}, {wanted} was "
                "expected: prepare the clips again"
            )
    return wanted[0]


def require_same_vision(items: VideoSet, grey: Tensor) -> None:
    """Refuse a set whose features are of another CLIP vision than those that trained weights know, by mid grey's.

    Raises:
        ValueError: mid grey looks different in the set.
    """
    found = first_bucket(items).grey
    if float((found - grey).abs().mean()) > VISION_ROUNDING * float(grey.abs().mean()):
        raise ValueError(
            f"the clips in {one_line(first_bucket(items).folder)} hold features of another CLIP vision than the one "
            "that the continued weights were trained with: prepare them with the same file"
        )


def require_inputs(config: TrainConfig, roles: tuple[str, ...]) -> None:
    """Refuse a config that names no file to start from, or no data set.

    Raises:
        ValueError: names the empty key.
    """
    for key, given, wanted in (
        ("init_from", config.init_from, f"the file that training starts from ({' or '.join(roles)})"),
        ("data.folder", config.data.folder, "a set of encoded clips"),
    ):
        if not given:
            raise ValueError(f"{key} is empty; it names {wanted}")
