"""What a video stage is given, checked before anything is trained: files, data sets, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..config import ResamplerConfig
from .batches import VideoSet, empty_caption, first_bucket
from .config import TrainConfig

if TYPE_CHECKING:
    from .video import VideoStage


def require_fit(stage: VideoStage, given: Mapping[str, Any]) -> None:
    """Refuse data sets that do not fit the networks, and keys of [model] that say something else than the start file.

    Args:
        stage: the stage, with its networks, sets and empty prompt.
        given: the [model] table, as it was given.

    Raises:
        ValueError: names both sides.
    """
    unet, appearnet = stage.video.unet.config, stage.video.appearnet.config
    for key in (
        "injected_norm",
        "injection",
        "hidden",
        "spade_norms",
        "time_conditioned",
        "text_conditioned",
    ):
        there = getattr(unet if key == "injected_norm" else appearnet, key)
        if key in given and given[key] != there:
            raise ValueError(
                f"model.{key} is {given[key]!r}, but the file that init_from names has {there!r}: networks keep their "
                "shape; leave the key out, or start from an image model"
            )
    for items in (stage.dataset, stage.test):
        first = first_bucket(items)
        clip, width = first[0]["mean"], stage.encode_text(empty_caption(items)[None]).shape[-1]
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
        ValueError: the clips have no features, or those of another model.
    """
    found = first_bucket(items)[0].get("vision")
    positions = resampler.grey or (0 if found is None else found.shape[0])
    if found is None or tuple(found.shape) != (positions, resampler.in_width):
        given = "no features" if found is None else f"features of shape {tuple(found.shape)}"
        wanted = f"({positions or 257}, {resampler.in_width})"
        raise ValueError(
            f"the clips in {first_bucket(items).folder} have {given} of CLIP vision, through which these weights look "
            f"at pictures; {wanted} was expected: prepare the clips with --clip-vision, or set model.injection to "
            '"spade" for a new AppearNet'
        )
    return positions


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
