"""The table of the docs' pictures: what makes each, the files it goes to, and how large they may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ...run.home import ROOT, Problem, say
from ..thumbnails import LIMIT
from . import clips, hosted
from .files import write
from .studio import Studio


@dataclass(frozen=True)
class File:
    """Below the checkout. fps: of an animation; without one it is a still. limit: kilobytes."""

    path: str
    limit: int
    fps: float = 0


@dataclass(frozen=True)
class Picture:
    """`make` gives the frames of each file, in the files' order."""

    name: str
    make: Callable[[Studio], list[list[Image.Image]]]
    files: tuple[File, ...]


# The limits of docs/ add up to less than 6 MB.
# fmt: off
PICTURES = (
    Picture("base_test", partial(clips.base, split="test"),
            (File("docs/base_test.jpg", 450), File("docs/base_test.webp", 450, fps=2))),
    Picture("base_train", partial(clips.base, split="train"),
            (File("docs/base_train.jpg", 450), File("docs/base_train.webp", 450, fps=2))),
    Picture("tsr_test", clips.tsr,
            (File("docs/tsr_test.jpg", 350), File("docs/tsr_test.webp", 500, fps=8))),
    Picture("text_to_image", hosted.text_to_image,
            (File("docs/text_to_image.jpg", 200),)),
    Picture("own_pictures", hosted.own,
            (File("docs/own_pictures.jpg", 200), File("docs/own_pictures.webp", 600, fps=8))),
    Picture("cascade", hosted.cascade,
            (File("docs/cascade.jpg", 200), File("docs/cascade.webp", 1300, fps=16))),
    Picture("readme", hosted.readme,
            (File("docs/readme.webp", 800, fps=8),)),
    Picture("thumbnails", hosted.workflow_thumbnails,
            tuple(File(f"workflows/{name}.jpg", LIMIT) for name in hosted.THUMBNAILS)),
)
# fmt: on


def named(names: list[str]) -> list[Picture]:
    """The pictures of these names, in the table's order; all when there are none."""
    unknown = set(names) - {picture.name for picture in PICTURES}
    if unknown:
        known = ", ".join(picture.name for picture in PICTURES)
        raise Problem(f"There is no picture {', '.join(sorted(unknown))}: expected one of {known}.")
    return [picture for picture in PICTURES if not names or picture.name in names]


def produce(picture: Picture, studio: Studio, out: Path | None = None) -> None:
    """Make a picture's files, in `out` instead of the checkout when given."""
    contents = picture.make(studio)
    for file, frames in zip(picture.files, contents, strict=True):
        path = out / Path(file.path).name if out else ROOT / file.path
        size = write(path, frames, limit=file.limit, fps=file.fps)
        width, height = frames[0].size
        say(f"  {path.name}: {size / 1000:.0f} kB, {len(frames)} x {width}x{height}")
