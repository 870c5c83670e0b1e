"""Make all pictures of the docs with the shipped weights.

`python3 dev.py python -m devtools.release.pictures [NAME ...]` needs the prepared emoji
(`python3 dev.py python -m mini.world.emoji prepare`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ...run.home import ROOT, Problem, say
from ..files import write_picture
from ..thumbnails import LIMIT
from . import makers
from .studio import Studio


@dataclass(frozen=True)
class File:
    """One file of a picture.

    Attributes:
        path: relative to the checkout.
        limit: largest size in kilobytes.
        fps: frame rate of an animation; 0 for a still.
        workflow: the shipped workflow that an animation restores when it is dropped on ComfyUI's canvas; "" for none.
    """

    path: str
    limit: int
    fps: float = 0
    workflow: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture of the docs.

    Attributes:
        name: its name on the command line.
        make: returns the frames of each file, in the order of `files`.
        files: the files to write.
    """

    name: str
    make: Callable[[Studio], list[list[Image.Image]]]
    files: tuple[File, ...]


PICTURE, TEXT = "10 Start here - picture to video (mini)", "11 Text to video (mini)"

# The limits of docs/ add up to less than 6 MB.
# fmt: off
PICTURES = (
    Picture("base_test", partial(makers.base, split="test"),
            (File("docs/base_test.jpg", 450), File("docs/base_test.webp", 450, fps=2))),
    Picture("base_train", partial(makers.base, split="train"),
            (File("docs/base_train.jpg", 450), File("docs/base_train.webp", 450, fps=2))),
    Picture("tsr_test", makers.tsr,
            (File("docs/tsr_test.jpg", 350), File("docs/tsr_test.webp", 500, fps=8))),
    Picture("text_to_image", makers.text_to_image,
            (File("docs/text_to_image.jpg", 200),)),
    Picture("own_pictures", makers.from_own_pictures,
            (File("docs/own_pictures.jpg", 200), File("docs/own_pictures.webp", 600, fps=8, workflow=PICTURE))),
    Picture("cascade", makers.cascade,
            (File("docs/cascade.jpg", 200), File("docs/cascade.webp", 1300, fps=16, workflow=TEXT))),
    Picture("readme", makers.readme,
            (File("docs/readme.webp", 800, fps=8, workflow=TEXT),)),
    Picture("thumbnails", makers.workflow_thumbnails,
            tuple(File(f"workflows/{name}.jpg", LIMIT) for name in makers.THUMBNAILS)),
)
# fmt: on


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.release.pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(picture.name for picture in PICTURES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {known}")
    parser.add_argument("--steps", type=int, metavar="N", help="sampling steps, for a draft")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder for a draft's files")
    options = parser.parse_args()
    try:
        with Studio(options.steps) as studio:
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
            for picture in named(options.names):
                say(f"{picture.name} ...")
                start = time.monotonic()
                produce(picture, studio, options.out)
                say(f"  {time.monotonic() - start:.0f} s")
    except (Problem, OSError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def named(names: list[str]) -> list[Picture]:
    """Return the pictures with these names in the order of `PICTURES`; all pictures if no name is given.

    Raises:
        Problem: a name is unknown.
    """
    unknown = set(names) - {picture.name for picture in PICTURES}
    if unknown:
        known = ", ".join(picture.name for picture in PICTURES)
        raise Problem(f"There is no picture {', '.join(sorted(unknown))}: expected one of {known}.")
    return [picture for picture in PICTURES if not names or picture.name in names]


def produce(picture: Picture, studio: Studio, out: Path | None = None) -> None:
    """Make a picture's files in the checkout, or in the folder `out`."""
    contents = picture.make(studio)
    for file, frames in zip(picture.files, contents, strict=True):
        path = out / Path(file.path).name if out else ROOT / file.path
        graph = graph_of(file.workflow) if file.workflow else ""
        size = write_picture(path, frames, limit=file.limit, fps=file.fps, graph=graph)
        width, height = frames[0].size
        say(f"  {path.name}: {size / 1000:.0f} kB, {len(frames)} x {width}x{height}")


def graph_of(workflow: str) -> str:
    """Return a shipped workflow's JSON without spaces."""
    text = (ROOT / "workflows" / f"{workflow}.json").read_text(encoding="utf-8")
    return json.dumps(json.loads(text), separators=(",", ":"))


if __name__ == "__main__":
    sys.exit(main())
