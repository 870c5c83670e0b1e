"""Centre frames on disk: a folder with one picture for each sample, `00000.png` ..."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
