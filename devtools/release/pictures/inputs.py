"""Prompts and pictures for the models. All follow from a rule, except the cherry-picked prompts."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from mini.world.backgrounds import COLOURS
from mini.world.captions import subject, with_article
from mini.world.emoji import read_catalogue

from ...run.example_pictures import drawn_face
from .layout import evenly_spaced

TYPICAL = 12
OUTSIDE = ("an armadillo", "a windmill", "a harp", "a lighthouse")
"""Prompts without any word of the vocabulary."""
CHERRY_PICKED = (
    ("a flag of botswana going away on a red background", 3),
    ("a red heart coming closer on a white background", 2),
    ("a worried face coming closer on a blue background", 1),
    ("a flag of brazil going away on a red background", 3),
)
"""Prompts and seeds, cherry-picked from 16 samples (mini/NOTEBOOK.md). The first is the demo's default."""


def typical_prompts(emoji: Path) -> list[str]:
    """Return prompts about the train split's subjects, evenly spaced in the alphabet.

    Args:
        emoji: the folder of prepared emoji. The background colours are used in turn.
    """
    subjects = sorted({subject(entry) for entry in read_catalogue(emoji, "train")})
    grounds = [*COLOURS, *COLOURS]
    return [
        f"{with_article(name)} on {with_article(ground)} background"
        for name, ground in zip(evenly_spaced(subjects, TYPICAL), grounds, strict=False)
    ]


def own_pictures() -> list[tuple[str, Image.Image]]:
    """Return (prompt, picture) pairs as users bring them; none of the pictures was trained on."""
    return [
        ("a logo coming closer", drawn_logo()),
        ("a logo moving to the right", drawn_logo()),
        ("a happy face coming closer", drawn_face(0.5)),
        ("a laughing face", drawn_face(0.5)),
        ("a cup of hot coffee steaming", photograph()),
    ]


def drawn_logo() -> Image.Image:
    """Draw three discs in a ring on white, 512 x 512."""
    page = Image.new("RGB", (1024, 1024), "white")
    draw = ImageDraw.Draw(page)
    draw.ellipse([192, 192, 832, 832], outline="#1d3557", width=56)
    for x, y, colour in ((512, 400, "#e63946"), (416, 576, "#2a9d8f"), (608, 576, "#f4a261")):
        draw.ellipse([x - 104, y - 104, x + 104, y + 104], fill=colour)
    return page.resize((512, 512), Image.Resampling.LANCZOS)


def photograph() -> Image.Image:
    """Return scikit-image's cup of coffee; the training backgrounds use other photographs of that library."""
    from skimage.data import coffee

    return Image.fromarray(coffee())
