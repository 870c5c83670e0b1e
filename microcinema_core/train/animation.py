"""Animated sheets."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def save_animation(path: Path, frames: Tensor, fps: float) -> None:
    """Write (f, 3, h, w) in [0, 1] as an endless .webp, at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    first, *rest = [Image.fromarray(frame) for frame in pixels]
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    first.save(temporary, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, quality=80)
    os.replace(temporary, path)
