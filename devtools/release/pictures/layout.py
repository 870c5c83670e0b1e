"""Clips and pictures, in [-1, 1], laid out as one still or as the frames of an animation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from microcinema_core.train.sheets import as_image, grid

GAP = 3
LETTERS, LINES, LINE = 21, 4, 14


def rows(*clips: Tensor) -> Tensor:
    """A tile for each clip: its frames side by side, a row for each set of clips `n f c h w` -> `n c (k h) (f w)`."""
    return rearrange(list(clips), "k n f c h w -> n c (k h) (f w)")


def beside(*clips: Tensor) -> Tensor:
    """The sets' clips side by side, frame by frame: `n f c h w` -> `n f c h (k w)`."""
    return torch.cat(clips, dim=-1)


def still(tiles: Tensor, columns: int) -> Image.Image:
    """Tiles `n c h w`, row by row."""
    return as_image(grid(tiles, columns, gap=GAP))


def moving(clips: Tensor, columns: int) -> list[Image.Image]:
    """Clips `n f c h w`, row by row, at each of their frames."""
    return [still(clips[:, frame], columns) for frame in range(clips.shape[1])]


def as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as `n c h w` in [-1, 1]."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))
    return rearrange(pixels, "n h w c -> n c h w").float() / 127.5 - 1


def labelled(picture: Image.Image, text: str) -> Image.Image:
    """The picture with its text below."""
    page = Image.new("RGB", (picture.width, picture.height + LINES * LINE), "white")
    page.paste(picture)
    lines = textwrap.wrap(text, LETTERS)[:LINES]
    for number, line in enumerate(lines):
        place = (picture.width / 2, picture.height + 1 + number * LINE)
        ImageDraw.Draw(page).text(place, line, "black", ImageFont.load_default(11), anchor="ma")
    return page
