"""Thumbnails of workflows whose weights do not ship: what goes in, what comes out; no result is shown."""

from __future__ import annotations

import textwrap
from typing import Any

from ..run.example_pictures import drawn_face
from .gallery.templates import Template

SIDE = 384
"""Pixels of a thumbnail's side."""
CELLS, CELL, TOP = 5, 62, 150
"""Frames of the strip, the side of one, and where the strip begins."""
GROUND, FRAME, INK, SOFT = "#1f2a36", "#324254", "#f2f2f2", "#a9b8c8"


def card(title: str, template: Template) -> Any:
    """Draw the title, a strip of frames with the user's pictures in their places, and what comes out."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw = ImageDraw.Draw(page)
    name, _, weights = title.split(" ", 1)[1].partition(" (")
    heading = "\n".join([*textwrap.wrap(name, 22), *textwrap.wrap(f"({weights}" if weights else "", 22)])
    draw.multiline_text((SIDE / 2, 75), heading, INK, ImageFont.load_default(32), "mm", align="center")
    left = (SIDE - CELLS * CELL - (CELLS - 1) * 8) / 2
    given = {round(place * (CELLS - 1)) for place in template.given}
    for number in range(CELLS):
        corner = (round(left + number * (CELL + 8)), TOP)
        if number in given:
            page.paste(drawn_face(0.5).resize((CELL, CELL)), corner)
        else:
            draw.rounded_rectangle([*corner, corner[0] + CELL, TOP + CELL], 6, FRAME)
    words = ("from your words", "from your picture", "between your pictures")
    draw.text((SIDE / 2, TOP + CELL + 24), words[len(given)], SOFT, ImageFont.load_default(19), "mm")
    made = template.makes.replace(" at ", "\nat ")
    draw.multiline_text((SIDE / 2, 310), made, INK, ImageFont.load_default(26), "mm", align="center")
    return page
