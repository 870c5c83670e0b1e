"""The page docs/workflows.md: what each shipped workflow makes. `devtools.release.thumbnails` writes it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from urllib.parse import quote

from ..run.home import ROOT, say
from ..run.models import needed_files
from .files import write_section
from .gallery.templates import TEMPLATES

PAGE = ROOT / "docs" / "workflows.md"
GROUPS = {
    "1": "With the mini models, which ship with the pack",
    "2": "With published motion weights",
    "3": "Before and after your own training",
    "4": "Experiments",
    "5": "The paper's evaluation",
}
"""Headings by the first digit of a workflow's title."""
HEAD = "| | workflow | makes | {} |\n|---|---|---|---|\n"


def write_page(seconds: Mapping[str, float | None]) -> None:
    """Write a table for each group of workflows.

    Args:
        seconds: how long each workflow's run took, by its title; None for one that cannot run here.
    """
    parts = []
    for digit, heading in GROUPS.items():
        titles = [title for title in TEMPLATES if title.startswith(digit)]
        ran = any(seconds[title] is not None for title in titles)
        column = f"time on {os.cpu_count()} CPU cores" if ran else "needs"
        rows = [_row(title, seconds[title]) for title in titles]
        parts.append(f"## {heading}\n\n{HEAD.format(column)}{''.join(rows)}")
    write_section(PAGE, "workflows", "\n".join(parts))
    say(str(PAGE.relative_to(ROOT)))


def _row(title: str, seconds: float | None) -> str:
    picture = f'<img src="../workflows/{quote(title)}.jpg" width="192" alt="{title}">'
    last = needs(title) if seconds is None else f"{seconds:.0f} s"
    return f"| {picture} | *{title}* | {TEMPLATES[title].makes} | {last} |\n"


def needs(title: str) -> str:
    """Return the files that a workflow names, with the folders in ComfyUI's `models`."""
    workflow = json.loads((ROOT / "workflows" / f"{title}.json").read_text(encoding="utf-8"))
    files = [f"`{need.folders[0]}/{need.name}`" for need in needed_files(workflow)]
    if "motion.mp4" in json.dumps(workflow):
        files.append("a video of yours")
    return "<br>".join(files)
