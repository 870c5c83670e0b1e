"""Evaluate made videos against real ones: measure both sets, then compute the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from ..messages import counted, one_line
from . import figures
from .feature_cache import FeatureJob, Measured, measure_all, read_measured
from .figures import LEAST_KEYS, Figure
from .measures import I3DLogits, Measure
from .motion import NAMES, UNITS
from .options import KEYS, MetricOptions
from .video_sets import LEAST_CLIPS, VideoSet, read_set, refuse_uncaptioned

FEW_KEYS = 10
"""Keys below which a note says that the intervals are too narrow."""
RATES_DIFFER = 1.1
"""Ratio of the sets' frame rates from which a note says so."""


def evaluate(options: MetricOptions) -> dict[str, Any]:
    """Measure both sets, and return the report: figures, what could not be computed, settings, what was left out.

    Raises:
        ValueError: an input is not what was expected.
        OSError: the cache cannot be written to, or a video made a library crash; measured values stay.
    """
    sets = [
        read_set("REAL", options.real, options.key, options.most),
        read_set("MADE", options.made, options.key, options.most, table=options.captions),
    ]
    if options.clipsim is not None:
        refuse_uncaptioned(sets[1], options.captions)
    measures = [
        one for one in (options.i3d, options.classes, options.clipsim, options.motion) if one is not None
    ]
    values: dict[str, Pair] = {measure.key: () for measure in measures}
    for one in sets:
        for job in jobs_of(options, measures, one.name):
            measure_all(job, one.videos, options.workers, one.name)
            for measure in job.measures:
                values[measure.key] += (read_measured(job, measure, one.videos, one.keys),)
    found, problems = make_figures(options, values)
    return {
        "figures": [figure.to_dict() for figure in found],
        "not_computed": problems,
        "notes": [
            *([figures.PUBLISHED] if options.i3d or options.classes else []),
            *_count_notes(options, values),
            *_key_notes(options, found),
            *_rate_notes(values),
        ],
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


Pair = tuple[Measured, ...]
"""The values of one measure, of the real and of the made videos."""


def make_figures(options: MetricOptions, values: dict[str, Pair]) -> tuple[list[Figure], list[str]]:
    """Compute all figures that were asked for, and a sentence for each metric that cannot be computed.

    Raises:
        ValueError: none can be computed.
    """
    found: list[Figure] = []
    problems: list[str] = []
    for name, compute in _asked(options).items():
        try:
            found += compute(options, values)
        except (ValueError, torch.linalg.LinAlgError) as error:
            problems.append(f"{name} cannot be computed: {one_line(error)}")
    if not found:
        raise ValueError("; ".join(problems))
    return found, problems


Compute = Callable[[MetricOptions, dict[str, Pair]], list[Figure]]
"""Computes the figures of a metric. Raises ValueError where the videos do not allow it."""


def _asked(options: MetricOptions) -> dict[str, Compute]:
    """Return the metrics that were asked for, in the order of the table."""
    metrics: list[tuple[str, bool, Compute]] = [
        ("FVD", options.fvd, _fvd),
        ("KVD", options.kvd, _kvd),
        ("IS", options.inception, _inception),
        ("CLIPSIM", options.clipsim is not None, _clipsim),
        ("motion", options.motion is not None, _motion),
    ]
    return {name: compute for name, asked, compute in metrics if asked}


def _fvd(options: MetricOptions, values: dict[str, Pair]) -> list[Figure]:
    assert options.i3d is not None
    real, made = _enough(values, options.i3d)
    return [figures.fvd(real, made, options.i3d.label, options.bootstrap)]


def _kvd(options: MetricOptions, values: dict[str, Pair]) -> list[Figure]:
    assert options.i3d is not None
    real, made = _enough(values, options.i3d)
    _refuse_one_key(real, "REAL", options.key)
    _refuse_one_key(made, "MADE", options.key)
    return [figures.kvd(real, made, options.i3d.label, options.bootstrap)]


def _inception(options: MetricOptions, values: dict[str, Pair]) -> list[Figure]:
    measure: Measure | None = options.classes or options.i3d
    assert measure is not None
    real, made = values[measure.key]
    _refuse_few(made, "MADE")
    if isinstance(measure, I3DLogits):
        real, made = (Measured(one.values.softmax(1), one.keys, one.fps) for one in (real, made))
    return [figures.inception(real, made, measure.label, options.bootstrap, splits=options.splits)]


def _clipsim(options: MetricOptions, values: dict[str, Pair]) -> list[Figure]:
    assert options.clipsim is not None
    real, made = values[options.clipsim.key]
    _refuse_few(made, "MADE")
    note = "higher is better"
    return [figures.mean("CLIPSIM", real, made, options.clipsim.label, options.bootstrap, note=note)]


def _motion(options: MetricOptions, values: dict[str, Pair]) -> list[Figure]:
    assert options.motion is not None
    real, made = _enough(values, options.motion)
    label, note = options.motion.label, "best: REAL's"
    return [
        figures.mean(f"{name} ({unit})", real, made, label, options.bootstrap, column=column, note=note)
        for column, (name, unit) in enumerate(zip(NAMES, UNITS, strict=True))
    ]


def _enough(values: dict[str, Pair], measure: Measure) -> Pair:
    for one, name in zip(values[measure.key], ("REAL", "MADE"), strict=True):
        _refuse_few(one, name)
    return values[measure.key]


def _refuse_few(measured: Measured, name: str) -> None:
    if len(measured.keys) < LEAST_CLIPS:
        reasons = measured.skipped
        raise ValueError(
            f"{counted(len(measured.keys), 'video')} of {name} can be used, at least {LEAST_CLIPS} are needed"
            + (f"; {reasons[0].file}: {reasons[0].reason}" if reasons else "")
        )


def _refuse_one_key(measured: Measured, name: str, key: str) -> None:
    if len(set(measured.keys)) < 2:
        others = " or ".join(other for other in KEYS if other != key)
        raise ValueError(
            f"all {len(measured.keys)} clips of {name} are related by --key {key}, and it compares unrelated clips "
            f"only; choose --key {others}, or add others to {name}"
        )


def _count_notes(options: MetricOptions, values: dict[str, Pair]) -> list[str]:
    """Return a note if FVD compares sets of different sizes."""
    if options.i3d is None or not options.fvd:
        return []
    real, made = (len(one.keys) for one in values[options.i3d.key])
    if real == made or min(real, made) < LEAST_CLIPS:
        return []
    return [
        f"MADE has {counted(made, 'video')} and REAL {real}; FVD is biased by the count: --most {min(real, made)} "
        "compares about equal counts."
    ]


def _key_notes(options: MetricOptions, found: Sequence[Figure]) -> list[str]:
    """Return a note if intervals come from few keys."""
    few: dict[int, list[str]] = {}
    for figure in found:
        if figure.keys < FEW_KEYS:
            few.setdefault(figure.keys, []).append(figure.name)
    if not few:
        return []
    told = "; ".join(f"{counted(keys, 'group')} for {', '.join(names)}" for keys, names in few.items())
    return [
        f"With --key {options.key}, intervals come from few groups of related clips ({told}): from fewer than "
        f"{FEW_KEYS} they are too narrow, and from fewer than {LEAST_KEYS} there are none."
    ]


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
