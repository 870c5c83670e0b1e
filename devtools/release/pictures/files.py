"""Write a still or an animation, at the best quality that keeps the file below its limit."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...run.home import Problem

QUALITIES = (88, 80, 70, 60, 50, 40, 30, 20)


def write(path: Path, frames: Sequence[Image.Image], *, limit: float, fps: float = 0) -> int:
    """Write frames as what the suffix says: .jpg holds the first, .webp loops over all. Returns its bytes.

    Args:
        limit: kilobytes.
        fps: of an animation.
    """
    for quality in QUALITIES:
        data = _moving(frames, quality, fps) if fps else _still(frames[0], quality)
        if len(data) <= limit * 1000:
            part = path.with_name(f"{path.name}.tmp")
            part.write_bytes(data)
            os.replace(part, path)
            return len(data)
    raise Problem(
        f"{path.name} takes {len(data) / 1000:.0f} kB at the lowest quality: its limit is {limit:g}."
    )


def _still(picture: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=quality, optimize=True)
    return data.getvalue()


def _moving(frames: Sequence[Image.Image], quality: int, fps: float) -> bytes:
    data = io.BytesIO()
    frames[0].save(
        data, format="WEBP", save_all=True, append_images=frames[1:],
        duration=round(1000 / fps), loop=0, quality=quality,
    )  # fmt: skip
    return data.getvalue()
