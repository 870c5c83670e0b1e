"""Take a picture of each node for its help page: `python3 dev.py python -m devtools.release.help_pictures`.

The pictures are screenshots of ComfyUI's front end, `web/docs/NODE.png`. This needs chromium and playwright, as the
browser tests do.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from ..run.browser import chromium, find_chromium
from ..run.home import ROOT, Problem, say
from ..run.host import find_host
from ..run.server import ComfyServer

FOLDER = ROOT / "web" / "docs"
WIDTH, OFFSET, MARGIN, TITLE = 340, 160, 10, 32
"""Pixels: width of a node, its position on the canvas, the margin around it, the title bar above it."""
TIMEOUT = 600_000
"""Milliseconds."""
CHOSEN = {
    "MicroCinemaInflate": {"file": "v1-5-pruned-emaonly-fp16.safetensors"},
    "MicroCinemaCrafterLoader": {"file": "dynamicrafter_512_fp16_pruned.safetensors"},
}
"""Widget values, where the first of the host's files would be misleading."""

ALONE = """([kind, width, at, chosen]) => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    app.graph.add(node);
    for (const widget of node.widgets ?? [])
        if (widget.name in chosen) widget.value = chosen[widget.name];
    const size = node.computeSize();
    node.pos = [0, 0];
    node.setSize([Math.max(width, size[0]), size[1]]);
    app.canvas.deselectAll();
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [at, at];
    app.canvas.setDirty(true, true);
    const box = document.querySelector("#graph-canvas").getBoundingClientRect();
    return {x: box.x, y: box.y, width: node.size[0], height: node.size[1]};
}"""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.release.help_pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help="the folder for the pictures (default: web/docs)",
    )
    parser.add_argument("--url", help="the address of a running ComfyUI")
    arguments = parser.parse_args()
    try:
        if arguments.url:
            take_all(arguments.url, arguments.out)
        else:
            with ComfyServer(sys.executable, find_host()) as server:
                server.post("/settings", {"Comfy.TutorialCompleted": True})
                take_all(server.url, arguments.out)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def take_all(url: str, out: Path) -> None:
    """Write the pictures of all nodes of this pack.

    Args:
        url: the address of a running ComfyUI.
        out: the folder for the pictures.

    Raises:
        Problem: there is no chromium.
    """
    path = find_chromium()
    if path is None:
        raise Problem("No chromium is installed: it takes the pictures.")
    with chromium(path) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.set_default_timeout(TIMEOUT)
        page.goto(url, wait_until="commit")
        page.wait_for_function("() => window.app?.graph && document.querySelector('#graph-canvas')")
        page.get_by_role("button", name="Run", exact=True).wait_for()
        kinds = page.evaluate("() => Object.keys(LiteGraph.registered_node_types)")
        for kind in sorted(kind for kind in kinds if kind.startswith("MicroCinema")):
            data = picture(page, kind)
            (out / f"{kind}.png").write_bytes(data)
            say(f"{kind}.png {len(data) / 1000:.0f} kB")


def picture(page: Any, kind: str) -> bytes:
    """Return a PNG of one node, alone on the canvas, with a palette of 64 colours."""
    from PIL import Image

    box = page.evaluate(ALONE, [kind, WIDTH, OFFSET, CHOSEN.get(kind, {})])
    page.wait_for_timeout(1500)
    clip = {
        "x": box["x"] + OFFSET - MARGIN,
        "y": box["y"] + OFFSET - TITLE,
        "width": box["width"] + 2 * MARGIN,
        "height": box["height"] + TITLE + MARGIN,
    }
    with Image.open(io.BytesIO(page.screenshot(clip=clip))) as shot:
        small = shot.convert("RGB").quantize(64)
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
