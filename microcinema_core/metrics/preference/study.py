"""A study: pairs of videos in a random order and on random sides, a page that shows them, and the key to the sides."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ... import json_text
from ...data.shards import write_json
from ...data.videos.report import Unusable
from ...data.videos.sources import Video, scan
from ...files.atomic import atomic_write
from ...frames.centre_frame import centre_crop, resize
from ...messages import one_line
from ..clip_reading import Sampling, read_clip
from ..video_output import write_frames

QUESTIONS = {
    "motion": "Motion quality",
    "text": "Text alignment",
    "visual": "Visual quality",
    "overall": "Overall preference",
}
"""What is asked of every pair (section 4.1, *Human evaluation*)."""
SIDES = ("left", "right")
SIZE = 320
"""Edge of the paper's videos in pixels."""
QUALITY = "12"
"""H.264's constant rate factor: far finer than what could be seen."""
KEY, PAGE = "key.json", "page"
TEMPLATE = Path(__file__).with_name("page.html")
DATA = "/* DATA */"
"""Place of the study's data in the page."""


@dataclass(frozen=True)
class Pair:
    """Two videos of one name.

    Attributes:
        name: the name that both have.
        prompt: the caption; empty if there is none.
        first: the side on which the first folder's video is shown.
    """

    name: str
    prompt: str
    first: str


@dataclass(frozen=True)
class Study:
    """What `OUT/key.json` holds.

    Attributes:
        first, second: the two folders, as they were given.
        size: edge of the squares in pixels.
        questions: keys of `QUESTIONS`; without "text" if a pair has no caption.
        pairs: in the order of the page.
    """

    first: str
    second: str
    size: int
    questions: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def id(self) -> str:
        """A hash by which answers are told from those of another study."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def make(first: Path, second: Path, out: Path, *, count: int | None, size: int, seed: int) -> int:
    """Write the page, its videos and the key, and return the number of pairs. What is there of this study is kept.

    Args:
        first, second: folders of videos or caption tables; videos of one name, without its suffix, are a pair.
        out: folder of the study.
        count: number of pairs, drawn at random; None takes all.
        size: edge of the squares in pixels, an even number.
        seed: of the draw, of the order and of the sides.

    Raises:
        ValueError: no name is in both, too few are, a video cannot be read, or `out` holds another study.
    """
    if count is not None and count < 1:
        raise ValueError(f"--count is {count}; at least 1 is needed")
    if size < 16 or size % 2:
        raise ValueError(f"--size is {size}; expected an even number from 16")
    videos = [_by_name(folder) for folder in (first, second)]
    study = _study(first, second, videos, count=count, size=size, seed=seed)
    key = out / KEY
    if key.exists() and read_study(out) != study:
        raise ValueError(f"{one_line(out)} holds another study; give another folder, or move it away")
    write_json(key, asdict(study))
    for number, pair in enumerate(study.pairs):
        for side in SIDES:
            found = videos[0 if side == pair.first else 1][pair.name]
            path = out / PAGE / "videos" / f"{number:03d}_{side}.mp4"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_square(path, found, size)
    _write_page(out / PAGE / "index.html", study)
    return len(study.pairs)


def read_study(out: Path) -> Study:
    """Read the key of a study.

    Raises:
        ValueError: there is none, or it is no key.
    """
    path = out / KEY
    if not path.is_file():
        raise ValueError(f"{one_line(path)} is missing; `make` writes it")
    try:
        stored = json_text.loads(path.read_text(encoding="utf-8"))
        pairs = tuple(Pair(**pair) for pair in stored.pop("pairs"))
        return Study(**{**stored, "questions": tuple(stored["questions"])}, pairs=pairs)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{one_line(path)} is no key of a study; make the study again") from error


def _by_name(folder: Path) -> dict[str, Video]:
    videos, _ = scan(folder, missing_caption="empty")
    return {Path(video.id).with_suffix("").as_posix(): video for video in videos}


def _study(
    first: Path, second: Path, videos: list[dict[str, Video]], *, count: int | None, size: int, seed: int
) -> Study:
    names = sorted(set(videos[0]) & set(videos[1]))
    if not names or len(names) < (count or 0):
        raise ValueError(
            f"{one_line(first)} and {one_line(second)} have {len(names)} videos of one name; "
            f"{count or 'one or more'} were expected"
        )
    draw = random.Random(seed)
    chosen = draw.sample(names, count or len(names))
    pairs = tuple(
        Pair(
            name,
            next((text for found in videos for text in found[name].captions if text), ""),
            draw.choice(SIDES),
        )
        for name in chosen
    )
    questions = tuple(key for key in QUESTIONS if key != "text" or all(pair.prompt for pair in pairs))
    return Study(str(first), str(second), size, questions, pairs)


def _write_square(path: Path, video: Video, size: int) -> None:
    """Write the middle square of a video in a form that every browser plays, which shows no trace of its origin."""
    try:
        clip = read_clip(video, Sampling(None))
    except Unusable as error:
        raise ValueError(f"{one_line(video.id)}: {error}") from error
    squares = [_square(frame, size) for frame in clip.frames]
    options = {"crf": QUALITY, "preset": "fast"}
    write_frames(path, squares, clip.fps, codec="libx264", pixels="yuv420p", options=options)


def _square(frame: Tensor, size: int) -> np.ndarray:
    """Return the middle square of a frame, uint8 `3 h w`, as uint8 `size size 3`."""
    picture = resize(centre_crop(frame[None].float() / 255, aspect=1.0), height=size, width=size)[0]
    levels = (picture * 255).round().to(torch.uint8)  # `resize` stays within [0, 1]
    return levels.permute(1, 2, 0).contiguous().numpy()


def _write_page(path: Path, study: Study) -> None:
    data = {
        "study": study.id,
        "questions": {key: QUESTIONS[key] for key in study.questions},
        "prompts": [pair.prompt for pair in study.pairs],
    }
    text = json.dumps(data).replace("<", "\\u003c")  # a caption must not end the script
    with atomic_write(path, suffix=path.suffix) as part:
        part.write_text(TEMPLATE.read_text(encoding="utf-8").replace(DATA, text), encoding="utf-8")
