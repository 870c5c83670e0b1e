"""Pictures for a ComfyUI of our own: the workflows name `example.png`, which a new base directory lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

PICTURES = {"example.png": 0.5, "example_2.png": 0.62}
"""Where in the picture the face is, by the file's name: interpolation makes the way from the first to the second."""


def add_example_pictures(folder: Path) -> None:
    """Draw the pictures that are not there into an input folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, centre in PICTURES.items():
        if not (folder / name).exists():
            drawn_face(centre).save(folder / name)


def drawn_face(centre: float) -> Image.Image:
    """Draw a laughing face on blue, 512 x 512, with its centre at this share of the width."""
    from PIL import Image, ImageDraw  # in the environment only

    page = Image.new("RGB", (1024, 1024), "#3d7bc4")
    draw = ImageDraw.Draw(page)
    x, y = round(centre * 1024), 512
    draw.ellipse([x - 330, y - 330, x + 330, y + 330], fill="#fbc62f")
    for eye in (x - 120, x + 120):
        draw.ellipse([eye - 42, y - 150, eye + 42, y - 30], fill="#3a2a1a")
    draw.chord([x - 190, y - 120, x + 190, y + 220], 10, 170, fill="#8c2f39")
    return page.resize((512, 512), Image.Resampling.LANCZOS)
