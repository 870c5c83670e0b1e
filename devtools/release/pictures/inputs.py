"""Prompts and pictures for the models. All prompts follow from a rule."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from mini.evaluate.classifier import known_subjects
from mini.world.backgrounds import COLOURS
from mini.world.captions import MOTION_PHRASES, subject, with_article
from mini.world.emoji import read_catalogue
from mini.world.render import MOTIONS

from ...run.example_pictures import drawn_face
from .layout import evenly_spaced

TYPICAL = 12
OUTSIDE = ("an armadillo", "a windmill", "a harp", "a lighthouse")
"""Prompts without any word of the vocabulary."""


def typical_prompts(emoji: Path) -> list[str]:
    """Return prompts about the train split's subjects, evenly spaced in the alphabet.

    Args:
        emoji: the folder of prepared emoji. The background colours are used in turn.
    """
    subjects = sorted({subject(entry) for entry in read_catalogue(emoji, "train")})
    grounds = [*COLOURS, *COLOURS]
    return [
        _prompt(with_article(name), ground)
        for name, ground in zip(evenly_spaced(subjects, TYPICAL), grounds, strict=False)
    ]


def moving_prompts(emoji: Path) -> list[str]:
    """Return a prompt for each of the six motions, about the first of the subjects that text to image is measured on.

    Those subjects are drawn at random from the train split. The background colours are used in turn.

    Args:
        emoji: the folder of prepared emoji.
    """
    drawn = known_subjects(emoji, count=len(MOTIONS))
    return [
        _prompt(f"{with_article(subject(one.variants[0]))} {MOTION_PHRASES[motion][-1]}", ground)
        for one, motion, ground in zip(drawn, MOTIONS, COLOURS, strict=False)
    ]


def _prompt(seen: str, ground: str) -> str:
    return f"{seen} on {with_article(ground)} background"


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
