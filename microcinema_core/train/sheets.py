"""Sample sheets: many pictures in one PNG."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def grid(pictures: Tensor, columns: int, *, gap: int = 2) -> Tensor:
    """Pictures (n, 3, h, w) in [-1, 1] as one sheet (3, H, W) in [0, 1], row by row, on white."""
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
    """(3, h, w) in [0, 1] as PIL's."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels)


def save_picture(path: Path, picture: Tensor) -> None:
    """Write (3, h, w) in [0, 1] as what the path's suffix says (.png, .jpg), at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    as_image(picture).save(temporary, quality=88)
    os.replace(temporary, path)
