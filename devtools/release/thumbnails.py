"""Make the thumbnails of the shipped workflows: `python3 dev.py python -m devtools.release.thumbnails`.

A thumbnail shows nine frames, 3 by 3, of the video that the workflow makes. Workflows that start from pictures get a
drawn face, those that upscale get the demo's upscaler. If weights are missing, the thumbnail is a card that says what
the workflow makes. Without names, the page docs/workflows.md is written too: thumbnails, and the time of each run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..run import edit
from ..run.example_pictures import drawn_face
from ..run.home import ROOT, Problem, say
from ..run.host import find_host
from ..run.server import ComfyServer
from ..run.upscaler import FILE_NAME as UPSCALER
from ..run.upscaler import fetch_upscaler
from ..run.workflow import Prompt, read_prompt
from .cards import SIDE, card
from .files import write_picture
from .gallery.templates import TEMPLATES
from .pictures.layout import evenly_spaced
from .showcase import write_page

FOLDER = ROOT / "workflows"
FILES = (
    "file",
    "ckpt_name",
    "lora_name",
    "control_net_name",
    "model_name",
    "motion_file",
    "appearance_file",
    "unet_name",
    "clip_name",
    "vae_name",
)
"""Inputs that name a file of weights."""
ACROSS = 3
"""Frames in a row of a thumbnail."""
LIMIT = 60
"""Largest size of a thumbnail in kilobytes."""

Pictures = Sequence[Any]
"""PIL images."""


@dataclass(frozen=True)
class Shown:
    """What a workflow is shown by.

    Attributes:
        picture: its thumbnail.
        seconds: how long its run took; None if its weights are not there.
    """

    picture: Any
    seconds: float | None


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.release.thumbnails",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="workflows (default: all)")
    wanted = parser.parse_args().names
    try:
        if unknown := set(wanted) - set(TEMPLATES):
            raise Problem(
                f"There is no workflow {', '.join(sorted(unknown))}: choose of {', '.join(TEMPLATES)}."
            )
        make_all(wanted or list(TEMPLATES), page=not wanted)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def make_all(names: list[str], *, page: bool) -> None:
    """Write the thumbnails of these workflows, and the page about them if `page`."""
    fetch_upscaler()  # first: a host looks for model folders when it starts
    seconds = {}
    with ComfyServer(sys.executable, find_host()) as server:
        for name in names:
            say(f"{name} ...")
            shown = show(server, name)
            size = write_picture(FOLDER / f"{name}.jpg", [shown.picture], limit=LIMIT)
            seconds[name] = shown.seconds
            took = "no weights" if shown.seconds is None else f"{shown.seconds:.0f} s"
            say(f"  {took}, {size / 1000:.0f} kB")
    if page:
        write_page(seconds)


def thumbnail(server: ComfyServer, name: str) -> Any:
    """Return the thumbnail of a shipped workflow: of its video, or a card if weights are missing."""
    return show(server, name).picture


def show(server: ComfyServer, name: str) -> Shown:
    """Run a shipped workflow if its weights are there; it loads them anew, as the first run does."""
    schemas = server.object_info()
    prompt = _prompt(name, schemas)
    if not _host_has_files(prompt, schemas):
        return Shown(card(name, TEMPLATES[name]), None)
    if any(node["class_type"] == "LoadImage" for node in prompt.values()):
        prompt = _with_pictures(server, prompt, [drawn_face(0.44), drawn_face(0.56)])
    server.free()
    start = time.monotonic()
    frames = run(server, prompt)
    return Shown(sheet(frames), time.monotonic() - start)


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


if __name__ == "__main__":
    sys.exit(main())
