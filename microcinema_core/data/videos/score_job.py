"""The first job: cut each video into windows and score them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ...messages import one_line, reason
from .attempt import ProcessUnit
from .decode import frames_at, survey
from .plan import Geometry, WorkUnit, content_key, size_name
from .report import ReportEntry, Unusable, write_report
from .score import Scorer, ScoreSettings
from .score_table import ScoreRow, is_whole, write_rows
from .sources import Video
from .windows import Window, explain_no_window, find_windows

logger = logging.getLogger(__name__)

VERSION = 1
"""Part of every cache key: raise it when the same settings give other clips, scores or latents than before."""

FILE_ERRORS = (ValueError, RuntimeError, ArithmeticError, LookupError, MemoryError, AssertionError)
"""What libraries raise on damaged or unusual files."""


@dataclass(frozen=True)
class ScoreJob:
    """Cut and score: writes the unit's report, then `scores/KEY/UNIT.parquet`."""

    out: Path
    geometry: Geometry
    scoring: ScoreSettings

    @property
    def folder(self) -> Path:
        """The folder of scores of this geometry and these settings."""
        key = content_key([VERSION, asdict(self.geometry), self.scoring.identity()])
        return self.out / "scores" / key

    def path(self, unit: WorkUnit) -> Path:
        """Return the path of a unit's scores."""
        return self.folder / f"{unit.name}.parquet"

    def report(self, unit: WorkUnit) -> Path:
        """Return the path of a unit's report."""
        return self.folder / f"{unit.name}.jsonl"

    def done(self, unit: WorkUnit) -> bool:
        """Return whether a unit is scored, and its table complete."""
        return is_whole(self.path(unit))

    def start(self) -> ProcessUnit:
        """Load the scoring models, and return the function that scores a unit."""
        scorer = Scorer(self.scoring)

        def process(unit: WorkUnit) -> None:
            rows: list[ScoreRow] = []
            entries: list[ReportEntry] = []
            for video in unit.videos:
                for item in _score_or_report(video, self.geometry, scorer):
                    (entries if isinstance(item, ReportEntry) else rows).append(item)  # type: ignore[arg-type]
            write_report(self.report(unit), entries)
            write_rows(self.path(unit), rows, self.scoring.names)

        return process


def _score_or_report(video: Video, geometry: Geometry, scorer: Scorer) -> list[ScoreRow | ReportEntry]:
    """Return what a video gives, or one entry on why it gives nothing: no file stops the others."""
    try:
        return list(score_video(video, geometry, scorer))
    except Unusable as error:
        return [ReportEntry(video.id, str(error))]
    except FILE_ERRORS as error:
        logger.info("%s", one_line(video.id), exc_info=True)
        return [ReportEntry(video.id, f"it could not be read ({type(error).__name__}: {reason(error)})")]


def score_video(
    video: Video, geometry: Geometry, scorer: Callable[..., dict[str, float]]
) -> Iterator[ScoreRow | ReportEntry]:
    """Yield a row for each clip, and an entry where part of the file was not used.

    Raises:
        Unusable: the video gives no clip.
    """
    found = survey(video)
    size = geometry.bucket(found.width, found.height)
    windows = find_windows(found, geometry.rates, most=geometry.most)
    if not windows:
        raise Unusable(explain_no_window(found, geometry.rates))
    if found.note:
        yield ReportEntry(video.id, found.note, skipped=False)
    for number, window in enumerate(windows):
        frames = frames_at(video, window.pts, size=size)
        yield _row(video, window, number, size_name(size), scorer(frames, video.captions, window.fps))


def _row(video: Video, window: Window, number: int, bucket: str, scores: dict[str, float]) -> ScoreRow:
    fields = {**asdict(window), "pts": list(window.pts), "bucket": bucket, "captions": list(video.captions)}
    names = {"clip_id": f"{video.id}#{number}", "video": video.id, "group": video.group}
    return {**names, **fields, **{f"score_{name}": value for name, value in scores.items()}}
