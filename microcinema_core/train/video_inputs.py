"""What a video stage is given, checked before anything is trained: files, data sets, and whether they fit."""

from __future__ import annotations

from torch import Tensor

from ..config import ResamplerConfig
from ..messages import one_line
from .batches import Buckets, VideoSet, first_bucket
from .config import TrainConfig

VISION_ROUNDING = 0.02
"""Share of the features by which two computations of them may differ: float16 on disk, other devices."""


def require_vision(items: VideoSet, resampler: ResamplerConfig) -> int:
    """Return the positions of CLIP vision's features in a set, for weights that look at pictures through it.

    Raises:
        ValueError: clips have no features, or those of another model.
    """
    wanted = (resampler.grey or first_bucket(items).positions, resampler.in_width)
    for part in items.parts if isinstance(items, Buckets) else [items]:
        for shape in part.shapes("vision"):
            if shape is None or shape != wanted:
                given = "no features" if shape is None else f"features of shape {shape}"
                other = "" if resampler.grey else ', or set model.injection to "spade" for a new AppearNet'
                raise ValueError(
                    f"clips in {one_line(part.folder)} have {given} of CLIP vision, through which these weights look "
                    f"at pictures; ({wanted[0] or 257}, {wanted[1]}) was expected: prepare them with "
                    f"--clip-vision{other}"
                )
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
