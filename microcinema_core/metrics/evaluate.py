"""Evaluate made videos against real ones: measure both sets, then compute the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.videos.report import ReportEntry
from ..data.videos.sources import Video, scan
from ..messages import one_line
from . import figures
from .clip_reading import fixed_position
from .feature_cache import FeatureJob, Measured, measure_all, read_measured
from .figures import Figure
from .measures import I3DLogits, Measure
from .motion import NAMES, UNITS
from .options import MetricOptions

LEAST_CLIPS = 2
RATES_DIFFER = 1.1
"""Ratio of the sets' frame rates from which a note says so."""


@dataclass(frozen=True)
class VideoSet:
    """Videos, the group of each, and files that are none."""

    name: str
    videos: list[Video]
    keys: list[str]
    entries: list[ReportEntry]


def evaluate(options: MetricOptions) -> dict[str, Any]:
    """Measure both sets, and return the report: figures, settings, and what was left out.

    Raises:
        ValueError: an input is not what was expected.
        OSError: the cache cannot be written to, or a video made a library crash; measured values stay.
    """
    sets = [
        read_set("REAL", options.real, None, options.key, options.most),
        read_set("MADE", options.made, options.captions, options.key, options.most),
    ]
    measures = [
        one for one in (options.i3d, options.classes, options.clipsim, options.motion) if one is not None
    ]
    values: dict[str, Pair] = {measure.key: () for measure in measures}
    for one in sets:
        for job in jobs_of(options, measures, one.name):
            measure_all(job, one.videos, options.workers, one.name)
            for measure in job.measures:
                values[measure.key] += (read_measured(job, measure, one.videos, one.keys),)
    found = make_figures(options, values)
    return {
        "figures": [figure.to_dict() for figure in found],
        "notes": [*([figures.PUBLISHED] if options.i3d or options.classes else []), *_rate_notes(values)],
        "settings": _settings(options),
        "left_out": _left_out(sets, values),
    }


def jobs_of(options: MetricOptions, measures: Sequence[Measure], name: str) -> list[FeatureJob]:
    """Return the measures of a set by the frames that they read: CLIPSIM of MADE may read others than the rest."""
    own = [one for one in measures if one is options.clipsim and name == "MADE"]
    rest = [one for one in measures if one not in own]
    cache = options.cache.absolute()
    jobs = [
        FeatureJob(cache, options.sampling, tuple(rest)),
        FeatureJob(cache, options.clipsim_sampling, tuple(own)),
    ]
    return [job for job in jobs if job.measures]


def read_set(name: str, path: Path, table: Path | None, key: str, most: int | None = None) -> VideoSet:
    """List the videos of a folder, table or shards, with the key of each; at most `most`, drawn by their names.

    Raises:
        ValueError: it does not exist, or holds fewer than two videos.
    """
    videos, entries = scan(path, table=table, missing_caption="empty")
    if len(videos) < LEAST_CLIPS:
        raise ValueError(f"{one_line(path)} holds {len(videos)} videos; at least {LEAST_CLIPS} are needed")
    drawn = {video.id for video in sorted(videos, key=lambda video: fixed_position(video.id))[:most]}
    kept = [video for video in videos if video.id in drawn]
    return VideoSet(name, kept, [key_of(video, key) for video in kept], entries)


def key_of(video: Video, key: str) -> str:
    """Return the group of a video: its source ("group"), its first "caption", or its "folder"."""
    if key == "caption":
        return video.captions[0] if video.captions else video.id
    if key == "folder":
        return video.id.rpartition("/")[0]
    return video.group


Pair = tuple[Measured, ...]
"""The values of one measure, of the real and of the made videos."""


def make_figures(options: MetricOptions, values: dict[str, Pair]) -> list[Figure]:
    """Compute all figures that were asked for.

    Raises:
        ValueError: too few videos could be measured.
    """
    found: list[Figure] = []
    bootstrap = options.bootstrap
    if options.i3d is not None:
        real, made = _enough(values, options.i3d)
        if options.fvd:
            found.append(figures.fvd(real, made, options.i3d.label, bootstrap))
        if options.kvd:
            found.append(figures.kvd(real, made, options.i3d.label, bootstrap))
    if options.inception:
        found.append(_inception(options, values))
    if options.clipsim is not None:
        real, made = values[options.clipsim.key]
        _refuse_few(made, "MADE")
        note = "higher is better"
        found.append(figures.mean("CLIPSIM", real, made, options.clipsim.label, bootstrap, note=note))
    if options.motion is not None:
        real, made = _enough(values, options.motion)
        label, note = options.motion.label, "best: REAL's"
        found += [
            figures.mean(f"{name} ({unit})", real, made, label, bootstrap, column=column, note=note)
            for column, (name, unit) in enumerate(zip(NAMES, UNITS, strict=True))
        ]
    return found


def _inception(options: MetricOptions, values: dict[str, Pair]) -> Figure:
    measure: Measure | None = options.classes or options.i3d
    assert measure is not None
    real, made = _enough(values, measure)
    if isinstance(measure, I3DLogits):
        real, made = (Measured(one.values.softmax(1), one.keys, one.fps) for one in (real, made))
    return figures.inception(real, made, measure.label, options.bootstrap, splits=options.splits)


def _enough(values: dict[str, Pair], measure: Measure) -> Pair:
    for one, name in zip(values[measure.key], ("REAL", "MADE"), strict=True):
        _refuse_few(one, name)
    return values[measure.key]


def _refuse_few(measured: Measured, name: str) -> None:
    if len(measured.keys) < LEAST_CLIPS:
        reasons = measured.skipped
        raise ValueError(
            f"{len(measured.keys)} videos of {name} can be used, at least {LEAST_CLIPS} are needed"
            + (f"; {reasons[0].file}: {reasons[0].reason}" if reasons else "")
        )


def _rate_notes(values: dict[str, Pair]) -> list[str]:
    """Return a note if the clips of the two sets last differently long."""
    real, made = next(iter(values.values()))
    if not len(real.fps) or not len(made.fps):
        return []
    rates = float(torch.median(real.fps)), float(torch.median(made.fps))
    if max(rates) < RATES_DIFFER * min(rates):
        return []
    return [
        f"REAL was read at {rates[0]:.3g} fps and MADE at {rates[1]:.3g}, so clips of one last longer than those of "
        "the other; --fps reads both at one rate."
    ]


def _left_out(sets: Sequence[VideoSet], values: dict[str, Pair]) -> dict[str, list[dict[str, Any]]]:
    """Return the files of each set that gave no value, with the reasons."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, one in enumerate(sets):
        entries = [*one.entries, *(entry for pair in values.values() for entry in pair[number].skipped)]
        found[one.name] = [asdict(entry) for entry in dict.fromkeys(entries)]
    return found


def _settings(options: MetricOptions) -> dict[str, Any]:
    return {
        "real": str(options.real),
        "made": str(options.made),
        **asdict(options.sampling),
        "clipsim_frames": options.clipsim_sampling.frames or "all",
        "key": options.key,
        "most": options.most,
        "resamples": options.bootstrap.resamples,
        "seed": options.bootstrap.seed,
        "is_splits": options.splits,
    }
