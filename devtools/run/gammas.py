"""Draw a contact sheet of a workflow's video at several gammas.

`python3 dev.py python -m devtools.run.gammas WORKFLOW [--gamma VALUE ...] [--url ADDRESS] [--out FILE]`

Each row is a run with one gamma and the same seed: frames of the video, from left to right, and how much moves. The
workflow is sent to a ComfyUI that is running, so it may use any model that you have there.
"""

from __future__ import annotations

import argparse
import copy
import io
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import edit
from .client import ComfyClient
from .demo import saved_video
from .home import Problem, run_command, say
from .workflow import Prompt, read_workflow, to_prompt

GAMMAS = (0.0, 0.01, 0.02, 0.04, 0.07, 0.1)
TILE, LABEL = 192, 72


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m devtools.run.gammas", description=__doc__)
    parser.add_argument("workflow", type=Path, help="a workflow file with a gamma, and Save Video")
    parser.add_argument("--gamma", type=float, nargs="+", default=GAMMAS, help="the values to try")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8188", help="address of the running ComfyUI (default: %(default)s)"
    )
    parser.add_argument("--frames", type=int, default=5, help="frames of each row (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("gammas.png"), help="default: %(default)s")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the workflow once for each gamma and write the sheet.

    Raises:
        Problem: no ComfyUI at the address, a workflow without a gamma, or a run that fails.
    """
    arguments = build_parser().parse_args(argv)
    for gamma in arguments.gamma:
        if not 0 <= gamma <= 1:
            raise Problem(f"--gamma is {gamma}: it has to be between 0 and 1.")
    client = ComfyClient(arguments.url.rstrip("/"))
    prompt = _read(arguments.workflow, client)
    rows = []
    for gamma in arguments.gamma:
        say(f"gamma {gamma:g} ...")
        frames = made_with(client, prompt, gamma)
        rows.append((f"{gamma:g}", spread(frames, arguments.frames), motion(frames)))
        say(f"gamma {gamma:g}: motion {rows[-1][2]:.4f}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(arguments.out)
    say(f"The sheet is {arguments.out}. Motion is the mean difference of neighbouring frames, from 0 to 1.")


def _read(path: Path, client: ComfyClient) -> Prompt:
    """Return a workflow in the API's format; it may be in the front end's.

    Raises:
        Problem: it cannot be read.
    """
    given = read_workflow(path)
    return to_prompt(given, client.object_info()) if "nodes" in given else given


def made_with(client: ComfyClient, prompt: Prompt, gamma: float) -> np.ndarray:
    """Return the frames `f h w 3` (uint8) of the video that a prompt saves with this gamma; gamma of TSR stays.

    Raises:
        Problem: the prompt has no gamma, or saves no video.
    """
    changed = copy.deepcopy(prompt)
    of_key_frames = {key: node for key, node in changed.items() if node["class_type"] != "MicroCinemaTSR"}
    if not edit.values_of(of_key_frames, ("gamma",)):
        raise Problem("The workflow has no gamma: add MicroCinema Noise Prior before its sampler.")
    edit.set_everywhere(of_key_frames, ("gamma",), gamma)
    saved = saved_video(client.run(changed, timeout=24 * 3600))
    query = urlencode({"filename": saved.name, "subfolder": saved.parent.as_posix(), "type": "output"})
    try:
        with urlopen(f"{client.url}/view?{query}", timeout=120) as response:
            return decoded(response.read())
    except (URLError, OSError) as error:
        raise Problem(f"The video {saved} cannot be fetched from ComfyUI: {error}.") from error


def decoded(video: bytes) -> np.ndarray:
    """Return the frames `f h w 3` (uint8) of a video file."""
    import av

    with av.open(io.BytesIO(video), mode="r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def spread(frames: np.ndarray, count: int) -> np.ndarray:
    """Return `count` frames from the first to the last, evenly."""
    return frames[np.linspace(0, len(frames) - 1, max(1, min(count, len(frames)))).round().astype(int)]


def motion(frames: np.ndarray) -> float:
    """Return the mean absolute difference of neighbouring frames, from 0 to 1; 0 for a single frame."""
    if len(frames) < 2:
        return 0.0
    return float(np.mean([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames)]) / 255)


def sheet(rows: list[tuple[str, Any, float]]) -> Image.Image:
    """Draw rows of (gamma, frames, motion) as one picture."""
    width = max(len(frames) for _, frames, _ in rows)
    first = rows[0][1][0]
    height = max(1, round(TILE * first.shape[0] / first.shape[1]))
    page = Image.new("RGB", (LABEL + width * (TILE + 2), len(rows) * (height + 2)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for index, (gamma, frames, moved) in enumerate(rows):
        top = index * (height + 2)
        draw.text((4, top + 4), f"gamma\n{gamma}\n\nmotion\n{moved:.4f}", fill="black", font=font)
        for column, frame in enumerate(frames):
            page.paste(Image.fromarray(frame).resize((TILE, height)), (LABEL + column * (TILE + 2), top))
    return page


if __name__ == "__main__":
    run_command(main, "Stopped.")
