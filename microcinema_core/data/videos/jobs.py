"""What is done unit by unit: what a job is, and the first of the two, which cuts and scores.

A job is small and can be sent to another machine; what it needs to work (models) is loaded by `start`, there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from .decode import frames_at, survey
from .plan import Geometry, Unit, key_of, name_of
from .report import Line, Unusable, write_lines
from .score import Scorer, Scoring
from .sources import Video
from .table import write_rows
from .windows import Window, nothing, windows

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same settings give other clips, scores or latents than before: old ones are made again."""

ODD = (ValueError, RuntimeError, ArithmeticError, LookupError, MemoryError, AssertionError)
"""What a strange file may make a library raise."""

Work = Callable[[Unit], None]
Row = dict[str, Any]


class Job(Protocol):
    """`done`: whether a unit needs no more work. `start`: loads what the work needs and returns it."""

    @property
    def out(self) -> Path: ...

    def done(self, unit: Unit) -> bool: ...

    def start(self) -> Work: ...


@dataclass(frozen=True)
class ScoreJob:
    """Cut and score: writes `scores/KEY/UNIT.parquet` and, first, the unit's report."""

    out: Path
    geometry: Geometry
    scoring: Scoring

    @property
    def folder(self) -> Path:
        key = key_of([VERSION, asdict(self.geometry), self.scoring.identity()])
        return self.out / "scores" / key

    def path(self, unit: Unit) -> Path:
        return self.folder / f"{unit.name}.parquet"

    def report(self, unit: Unit) -> Path:
        return self.folder / f"{unit.name}.jsonl"

    def done(self, unit: Unit) -> bool:
        return self.path(unit).exists()

    def start(self) -> Work:
        scorer = Scorer(self.scoring)

        def work(unit: Unit) -> None:
            rows: list[Row] = []
            lines: list[Line] = []
            for video in unit.videos:
                for found in _careful(video, lambda video: score_video(video, self.geometry, scorer)):
                    (lines if isinstance(found, Line) else rows).append(found)  # type: ignore[arg-type]
            write_lines(self.report(unit), lines)
            write_rows(self.path(unit), rows, self.scoring.columns)

        return work


def _careful(video: Video, work: Callable[[Video], Iterator[Row | Line]]) -> list[Row | Line]:
    """All of a video or a line that says why not: no file stops the others."""
    try:
        return list(work(video))
    except Unusable as error:
        return [Line(video.id, str(error))]
    except ODD as error:
        logger.info("%s", video.id, exc_info=True)
        return [Line(video.id, f"it could not be read ({type(error).__name__}: {error})")]


def score_video(
    video: Video, geometry: Geometry, scorer: Callable[..., dict[str, float]]
) -> Iterator[Row | Line]:
    """A row for each clip; a line where something of the file was not used.

    Raises:
        Unusable: no clip can be made of it.
    """
    found = survey(video)
    size = geometry.bucket(found.width, found.height)
    clips = windows(found, geometry.rates, most=geometry.most)
    if not clips:
        raise Unusable(nothing(found, geometry.rates))
    if found.note:
        yield Line(video.id, found.note, skipped=False)
    for number, clip in enumerate(clips):
        frames = frames_at(video, clip.pts, size=size)
        yield _row(video, clip, number, name_of(size), scorer(frames, video.captions, clip.fps))


def _row(video: Video, clip: Window, number: int, bucket: str, scores: dict[str, float]) -> Row:
    fields = {**asdict(clip), "pts": list(clip.pts), "bucket": bucket, "captions": list(video.captions)}
    names = {"clip_id": f"{video.id}#{number}", "video": video.id, "group": video.group}
    return {**names, **fields, **{f"score_{name}": value for name, value in scores.items()}}
