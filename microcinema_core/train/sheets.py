"""Sample sheets: many pictures in one file, many clips in one animation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..files.atomic import atomic_write


def grid(pictures: Tensor, columns: int, *, gap: int = 2) -> Tensor:
    """Arrange pictures `n 3 h w` in [-1, 1] row by row on white; returns one picture `3 H W` in [0, 1]."""
    rows = -(-len(pictures) // columns)
    tiles = F.pad((pictures.float().clamp(-1, 1) + 1) / 2, (gap, gap, gap, gap), value=1.0)
    missing = rows * columns - len(tiles)
    tiles = torch.cat([tiles, torch.ones(missing, *tiles.shape[1:])]) if missing else tiles
    height, width = tiles.shape[-2:]
    return (
        tiles.view(rows, columns, 3, height, width)
        .permute(2, 0, 3, 1, 4)
        .reshape(3, rows * height, columns * width)
    )


def as_image(picture: Tensor) -> Image.Image:
    """Convert a picture `3 h w` in [0, 1] to a PIL image."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels)


def save_picture(path: Path, picture: Tensor) -> None:
    """Write a picture `3 h w` in [0, 1], atomically, in the format of the path's suffix (.png, .jpg)."""
    _save(path, as_image(picture), quality=88)


def save_animation(path: Path, frames: Tensor, fps: float) -> None:
    """Write frames `f 3 h w` in [0, 1] as a looping .webp, atomically."""
    first, *rest = map(as_image, frames)
    _save(path, first, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, quality=80)


def _save(path: Path, image: Image.Image, **options: Any) -> None:
    with atomic_write(path, suffix=path.suffix) as part:
        image.save(part, **options)
