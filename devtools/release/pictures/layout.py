"""Lay out pictures and clips, RGB in [-1, 1], as one still or as the frames of an animation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from microcinema_core.train.sheets import as_image, grid

GAP = 3
LETTERS, LINES, LINE = 21, 4, 14
"""A label's characters per line, lines, and line height in pixels."""

T = TypeVar("T")


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Return `count` (at least two) items, evenly spaced from the first to the last."""
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


def rows(*clips: Tensor) -> Tensor:
    """Tile sets of clips `n f c h w` to `n c (k h) (f w)`: frames side by side, one row for each set."""
    return rearrange(list(clips), "k n f c h w -> n c (k h) (f w)")


def side_by_side(*clips: Tensor) -> Tensor:
    """Join sets of clips `n f c h w` to `n f c h (k w)`."""
    return torch.cat(clips, dim=-1)


def still(tiles: Tensor, columns: int) -> Image.Image:
    """Return one picture of the tiles `n c h w`, row by row."""
    return as_image(grid(tiles, columns, gap=GAP))


def animation(clips: Tensor, columns: int) -> list[Image.Image]:
    """Return one picture for each frame of the clips `n f c h w`, the clips row by row."""
    return [still(clips[:, frame], columns) for frame in range(clips.shape[1])]


def as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures of one size as `n c h w` in [-1, 1]."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))
    return rearrange(pixels, "n h w c -> n c h w").float() / 127.5 - 1


def labelled(picture: Image.Image, text: str) -> Image.Image:
    """Return the picture with a text below it."""
    page = Image.new("RGB", (picture.width, picture.height + LINES * LINE), "white")
    page.paste(picture)
    lines = textwrap.wrap(text, LETTERS)[:LINES]
    for number, line in enumerate(lines):
        place = (picture.width / 2, picture.height + 1 + number * LINE)
        ImageDraw.Draw(page).text(place, line, "black", ImageFont.load_default(11), anchor="ma")
    return page
