"""What the models are asked: texts and pictures that follow from a rule; `SHOWN` alone was chosen by eye."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from mini.world.backgrounds import COLOURS
from mini.world.captions import subject, with_article
from mini.world.emoji import read_catalogue

from ..thumbnails import drawn_face, evenly

TYPICAL = 12
OUTSIDE = ("an armadillo", "a windmill", "a harp", "a lighthouse")
"""Nothing of these is in the vocabulary."""
SHOWN = (
    ("a flag of botswana going away on a red background", 3),
    ("a red heart coming closer on a white background", 1),
    ("a smiling face going away on a blue background", 1),
    ("a flag of france coming closer on a white background", 1),
)
"""Texts and their seeds, the best by eye of the thirty that docs/mini.md tells of. The first is the demo's own."""


def typical_prompts(emoji: Path) -> list[str]:
    """Evenly spaced in the alphabet of the train split's subjects, on a background of each colour in turn."""
    subjects = sorted({subject(entry) for entry in read_catalogue(emoji, "train")})
    grounds = [*COLOURS, *COLOURS]
    return [
        f"{with_article(name)} on {with_article(ground)} background"
        for name, ground in zip(evenly(subjects, TYPICAL), grounds, strict=False)
    ]


def own_pictures() -> list[tuple[str, Image.Image]]:
    """Pictures that a person might bring, none of which was trained on, and what is said of each."""
    return [
        ("a logo coming closer", drawn_logo()),
        ("a logo moving to the right", drawn_logo()),
        ("a happy face coming closer", drawn_face(0.5)),
        ("a laughing face", drawn_face(0.5)),
        ("a cup of hot coffee steaming", photograph()),
    ]


def drawn_logo() -> Image.Image:
    """Three discs in a ring, on white."""
    page = Image.new("RGB", (1024, 1024), "white")
    draw = ImageDraw.Draw(page)
    draw.ellipse([192, 192, 832, 832], outline="#1d3557", width=56)
    for x, y, colour in ((512, 400, "#e63946"), (416, 576, "#2a9d8f"), (608, 576, "#f4a261")):
        draw.ellipse([x - 104, y - 104, x + 104, y + 104], fill=colour)
    return page.resize((512, 512), Image.Resampling.LANCZOS)


def photograph() -> Image.Image:
    """scikit-image's cup of coffee: of its photographs, the training backgrounds have others (data/backgrounds.py)."""
    from skimage.data import coffee

    return Image.fromarray(coffee())
