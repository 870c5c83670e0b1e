"""Write generated files: from the host's schemas, a section of a Markdown page, a still, an animation."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microcinema_core.files.atomic import atomic_write

from ..run.home import ROOT, Problem, say
from ..run.host import find_host
from ..run.server import ComfyServer

if TYPE_CHECKING:
    from PIL import Image

GRAPH_TAG = 0x010F
"""The EXIF tag in which ComfyUI's own nodes keep the workflow."""
QUALITIES = (88, 80, 70, 60, 50, 40, 30, 20)


def write_from_schemas(
    make: Callable[[Mapping[str, Any]], Mapping[str, str]], folder: Path, *, encoding: str
) -> int:
    """Start the host, write the files that are made from its node schemas, and return the exit code.

    Args:
        make: maps the host's GET /object_info to the content of each file, by its path under `folder`. A Problem that
            it raises is printed.
        folder: a folder of the checkout.
        encoding: text encoding of the files.
    """
    try:
        with ComfyServer(sys.executable, find_host()) as server:
            files = make(server.object_info())
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding=encoding, newline="\n")
        say(str(path.relative_to(ROOT)))
    return 0


def write_section(path: Path, name: str, text: str) -> None:
    """Replace a section of a Markdown page, or append it.

    Args:
        path: the page.
        name: identifies the section: it stands between two comments with this name.
        text: the section's Markdown, with a newline at its end.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{start}\n{text}{end}\n"
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end) + "\n", re.DOTALL)
    page = pattern.sub(lambda _: section, page) if pattern.search(page) else page.rstrip() + "\n\n" + section
    with atomic_write(path) as part:
        part.write_text(page, encoding="utf-8")


def write_picture(
    path: Path, frames: Sequence[Image.Image], *, limit: float, fps: float = 0, graph: str = ""
) -> int:
    """Write a still or an animation at the best quality that keeps the file below its limit.

    Args:
        path: `.jpg` for a still of the first frame, `.webp` for an endless loop over all frames.
        frames: pictures of one size.
        limit: largest size of the file in kilobytes.
        fps: frame rate of an animation; 0 for a still.
        graph: a workflow's JSON, which an animation restores when it is dropped on ComfyUI's canvas.

    Returns:
        The size of the file in bytes.

    Raises:
        Problem: the file is too large even at the lowest quality.
    """
    for quality in QUALITIES:
        data = _animation(frames, quality, fps, graph) if fps else _still(frames[0], quality)
        if len(data) <= limit * 1000:
            with atomic_write(path) as part:
                part.write_bytes(data)
            return len(data)
    raise Problem(
        f"{path.name} takes {len(data) / 1000:.0f} kB at the lowest quality: its limit is {limit:g}."
    )


def _still(picture: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=quality, optimize=True)
    return data.getvalue()


def _animation(frames: Sequence[Image.Image], quality: int, fps: float, graph: str) -> bytes:
    data, tags = io.BytesIO(), frames[0].getexif()
    if graph:
        tags[GRAPH_TAG] = f"workflow:{graph}"
    frames[0].save(
        data, format="WEBP", save_all=True, append_images=frames[1:],
        duration=round(1000 / fps), loop=0, quality=quality, exif=tags,
    )  # fmt: skip
    return data.getvalue()
