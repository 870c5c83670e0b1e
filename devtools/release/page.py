"""Sections of a page that commands write: each stands between two marks by which the next run finds it."""

from __future__ import annotations

import re
from pathlib import Path

from microcinema_core.files.atomic import atomic_write


def write_section(path: Path, name: str, text: str) -> None:
    """Put a section in its place in a Markdown page, or at the page's end. `text` ends with a line's end."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{start}\n{text}{end}\n"
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end) + "\n", re.DOTALL)
    page = pattern.sub(lambda _: section, page) if pattern.search(page) else page.rstrip() + "\n\n" + section
    with atomic_write(path) as part:
        part.write_text(page, encoding="utf-8")
