"""Make the thumbnails of the shipped workflows: `python3 dev.py python -m devtools.release.thumbnails`.

A thumbnail shows nine frames, 3 by 3, of the video that the workflow makes. Workflows that start from pictures get a
drawn face, those that upscale get the demo's upscaler. If weights are missing, the thumbnail is a drawing of the graph.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..run import edit
from ..run.home import ROOT, Problem, say
from ..run.host import find_host
from ..run.server import ComfyServer
from ..run.upscaler import FILE_NAME as UPSCALER
from ..run.upscaler import fetch_upscaler
from ..run.workflow import Prompt, read_prompt
from .files import write_picture
from .pictures.inputs import drawn_face
from .pictures.layout import evenly_spaced

FOLDER = ROOT / "workflows"
FILES = (
    "file",
    "ckpt_name",
    "lora_name",
    "control_net_name",
    "model_name",
    "motion_file",
    "appearance_file",
)
"""Inputs that name a file of weights."""
SIDE, ACROSS = 384, 3
"""Pixels of a thumbnail's side, and frames in a row."""
LIMIT = 60
"""Largest size of a thumbnail in kilobytes."""
GROUND, BOX, BAR, LINE, INK = "#1c1c1e", "#353539", "#44444a", "#7aa2d8", "#e6e6e6"

Pictures = Sequence[Any]
"""PIL images."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.release.thumbnails",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = sorted(file.stem for file in FOLDER.glob("*.json"))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"workflows (default: all of {', '.join(names)})"
    )
    wanted = parser.parse_args().names or names
    try:
        fetch_upscaler()  # first: a host looks for model folders when it starts
        with ComfyServer(sys.executable, find_host()) as server:
            for name in wanted:
                say(f"{name} ...")
                size = write_picture(FOLDER / f"{name}.jpg", [thumbnail(server, name)], limit=LIMIT)
                say(f"  {size / 1000:.0f} kB")
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def thumbnail(server: ComfyServer, name: str) -> Any:
    """Return the thumbnail of a shipped workflow: of its video, or of its graph if weights are missing."""
    schemas = server.object_info()
    prompt = _prompt(name, schemas)
    if not _host_has_files(prompt, schemas):
        return draw_graph(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
    if any(node["class_type"] == "LoadImage" for node in prompt.values()):
        prompt = _with_pictures(server, prompt, [drawn_face(0.44), drawn_face(0.56)])
    return sheet(run(server, prompt))


def _prompt(name: str, schemas: Mapping[str, Any]) -> Prompt:
    prompt = read_prompt(FOLDER / f"{name}.json", schemas)
    for node in prompt.values():
        if node["class_type"] == "UpscaleModelLoader":
            node["inputs"]["model_name"] = UPSCALER
    return prompt


def _host_has_files(prompt: Prompt, schemas: Mapping[str, Any]) -> bool:
    """Return whether the host has every file of weights that the workflow names."""
    for node in prompt.values():
        for field in FILES:
            spec = schemas[node["class_type"]]["input"].get("required", {}).get(field)
            if spec and node["inputs"][field] not in (
                spec[0] if isinstance(spec[0], list) else spec[1]["options"]
            ):
                return False
    return True


def _with_pictures(server: ComfyServer, prompt: Prompt, pictures: Pictures) -> Prompt:
    """Give each Load Image node of the workflow one of the pictures, in order."""
    for number, (node, picture) in enumerate(zip(edit.nodes_of(prompt, "LoadImage"), pictures, strict=False)):
        picture.save(server.input_dir / f"thumbnail_{number}.png")
        node["inputs"]["image"] = f"thumbnail_{number}.png"
    return prompt


def run(server: ComfyServer, prompt: Prompt) -> list[Any]:
    """Run a workflow and return the frames of the video that it saves."""
    import av

    outputs = server.run(prompt, timeout=4 * 3600)
    (node,) = (key for key, node in prompt.items() if node["class_type"] == "SaveVideo")
    (file,) = outputs[node]["images"]
    with av.open(str(server.output_dir / file["subfolder"] / file["filename"])) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def sheet(frames: Pictures) -> Any:
    """Return nine frames, evenly spaced from the first to the last, 3 by 3 in a square."""
    from PIL import Image

    cell = SIDE // ACROSS
    page = Image.new("RGB", (SIDE, SIDE))
    for place, frame in enumerate(evenly_spaced(frames, ACROSS * ACROSS)):
        page.paste(frame.resize((cell, cell)), (place % ACROSS * cell, place // ACROSS * cell))
    return page


def draw_graph(workflow: dict[str, Any]) -> Any:
    """Draw the boxes, titles and links of a workflow's graph, scaled to a square."""
    from PIL import Image, ImageDraw

    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] != "MarkdownNote"}
    boxes = {key: (*node["pos"], *(p + s for p, s in zip(node["pos"], node["size"], strict=True)))
             for key, node in nodes.items()}  # fmt: skip
    left, top = (min(box[axis] for box in boxes.values()) for axis in (0, 1))
    right, bottom = (max(box[axis] for box in boxes.values()) for axis in (2, 3))
    large, margin = 2 * SIDE, 24
    scale = (large - 2 * margin) / max(right - left, bottom - top)
    down = (large - (bottom - top) * scale) / 2
    page = Image.new("RGB", (large, large), GROUND)
    draw = ImageDraw.Draw(page)

    def place(x: float, y: float) -> tuple[float, float]:
        return margin + (x - left) * scale, down + (y - top) * scale

    for _, origin, _, target, _, _ in workflow["links"]:
        start, end = boxes[origin], boxes[target]
        draw.line([place(start[2], start[1] + 20), place(end[0], end[1] + 20)], fill=LINE, width=3)
    for key, (x, y, x2, y2) in boxes.items():
        draw.rounded_rectangle([*place(x, y), *place(x2, y2)], 6, fill=BOX)
        draw.rounded_rectangle([*place(x, y), *place(x2, y + 44)], 6, fill=BAR)
        title = nodes[key].get("title") or nodes[key]["type"].removeprefix("MicroCinema")
        draw.text(place(x + 10, y + 10), title, fill=INK)
    return page.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    sys.exit(main())
