"""Centre frames on disk: a folder with one picture for each sample, `00000.png` ..."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ...frames.centre_frame import prepare_centre_frame
from ...messages import one_line
from .prompts import Prompt

CENTRES = "centres"
"""Folder of the drawn centre frames, inside that of the samples."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def find_picture(folder: Path, stem: str) -> Path | None:
    """Return the picture of this stem; None where there is none."""
    paths = (folder / f"{stem}{suffix}" for suffix in PICTURE_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def pictures_of(folder: Path, prompts: Sequence[Prompt]) -> dict[str, Path]:
    """Return the centre frame of each prompt by its stem.

    Raises:
        ValueError: some are missing; the message names the first and counts them.
    """
    found = {prompt.stem: find_picture(folder, prompt.stem) for prompt in prompts}
    if lacking := [stem for stem, path in found.items() if path is None]:
        raise ValueError(
            f"--centres {one_line(folder)} has no picture {one_line(lacking[0])}.png, and {len(lacking)} of "
            f"{len(prompts)} are missing; add them, or leave out --centres to have all of them drawn"
        )
    return {stem: path for stem, path in found.items() if path is not None}


def read_picture(folder: Path, stem: str, *, width: int, height: int) -> Tensor:
    """Read a picture by its stem as `1 3 height width` in [-1, 1], cropped around the centre as the nodes do.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    found = find_picture(folder, stem)
    if found is None:
        raise ValueError(f"{one_line(folder)} has no picture {stem}{{{','.join(PICTURE_SUFFIXES)}}}")
    try:
        with Image.open(found) as image:
            pixels = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    except (OSError, ValueError) as error:
        raise ValueError(f"{one_line(found)} cannot be read as a picture") from error
    picture = rearrange(torch.from_numpy(pixels), "h w c -> 1 c h w")
    return prepare_centre_frame(picture, width=width, height=height) * 2 - 1
