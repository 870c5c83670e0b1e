"""Windows: which frames of a scene make a clip at a given rate.

Frames are chosen by their times. Where the times of the wanted rate have a frame nearby, the rate is exactly that; else
every n-th frame is taken and the true rate recorded, so that motion is even and never made of repeated frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .cuts import scenes
from .decode import Survey

NEARNESS = 0.125
"""How far a frame may lie from its wanted time, as a part of the interval."""

EVENNESS = 0.25
"""How far one interval of every n-th frame may differ from their median."""

SLOWEST, SLOWEST_LAST = 0.7, 0.3
"""Least true rate, as a part of the wanted one; the last round takes consecutive frames of slower videos too."""


@dataclass(frozen=True)
class Rate:
    """Windows of `frames` frames at `fps`. `native`: slower videos give their consecutive frames."""

    role: str
    fps: float
    frames: int
    native: bool = False


@dataclass(frozen=True)
class Window:
    """Frames of one clip: their pts, the seconds of the first, the scene they lie in.

    fps: the true rate. rate: the one that was wanted.
    """

    role: str
    rate: float
    fps: float
    pts: tuple[int, ...]
    start: float
    seconds: float
    scene: int


def paper_rates(
    frames: int = 9, fps: float = 2.0, *, rounds: int = 2, window: int = 5, factor: int = 4
) -> list[Rate]:
    """The base model's rate, then one a round of interpolation: 2 fps, then 8 and 32."""
    steps = [
        Rate("tsr", fps * factor ** (turn + 1), window, native=turn == rounds - 1) for turn in range(rounds)
    ]
    return [Rate("base", fps, frames), *steps]


def windows(survey: Survey, rates: Sequence[Rate], *, most: int) -> list[Window]:
    """At most `most` windows of each rate, spread over the video; none crosses a cut, none overlaps another of
    its rate."""
    found = []
    for rate in rates:
        fitting = [
            window
            for number, (start, stop) in enumerate(scenes(survey.changes))
            for window in _in_scene(survey, slice(start, stop), rate, number)
        ]
        found += _spread(fitting, most)
    return found


def _spread(fitting: list[Window], most: int) -> list[Window]:
    if len(fitting) <= most:
        return fitting
    places = (np.arange(most) + 0.5) * len(fitting) / most
    return [fitting[int(place)] for place in places]


def _in_scene(survey: Survey, scene: slice, rate: Rate, number: int) -> list[Window]:
    """Windows side by side, each from the first frame on that one fits at."""
    times = survey.times[scene]
    found, first = [], 0
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    while first + rate.frames <= len(times):
        picked = _pick(times, first, rate, _stride(step, rate))
        if picked is None:
            first += 1
        else:
            found.append(_window(survey, scene, rate, number, picked))
            first = int(picked[0][-1]) + 1
    return found


def _stride(step: float, rate: Rate) -> int:
    return max(1, round(1 / (rate.fps * step)))


def _pick(times: np.ndarray, first: int, rate: Rate, stride: int) -> tuple[np.ndarray, float] | None:
    """Indices into `times`, of which `first` is the first, and the true rate."""
    nearest = _nearest(times, times[first] + np.arange(rate.frames) / rate.fps)
    if nearest is not None:
        return nearest, rate.fps
    places = first + stride * np.arange(rate.frames)
    if places[-1] >= len(times):
        return None
    gaps = np.diff(times[places])
    middle = float(np.median(gaps))
    true = (rate.frames - 1) / float(times[places[-1]] - times[places[0]])
    slow = true < (SLOWEST_LAST if rate.native else SLOWEST) * rate.fps
    if slow or np.abs(gaps - middle).max() > EVENNESS * middle:
        return None
    return places, true


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """The frames nearest to the wanted times, if each is near enough and none serves twice."""
    right = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    places = np.where(wanted - times[right - 1] < times[right] - wanted, right - 1, right)
    near = np.abs(times[places] - wanted) <= NEARNESS * (wanted[1] - wanted[0])
    return places if near.all() and (np.diff(places) > 0).all() else None


def _window(
    survey: Survey, scene: slice, rate: Rate, number: int, picked: tuple[np.ndarray, float]
) -> Window:
    places, fps = picked
    pts, times = survey.pts[scene][places], survey.times[scene][places]
    seconds = float(times[-1] - times[0])
    return Window(
        rate.role, rate.fps, fps, tuple(int(value) for value in pts), float(times[0]), seconds, number
    )


def nothing(survey: Survey, rates: Sequence[Rate]) -> str:
    """Why a video gives no window at all, in words for the report."""
    parts = scenes(survey.changes)
    longest = max(float(survey.times[stop - 1] - survey.times[start]) for start, stop in parts)
    needed = min((rate.frames - 1) / rate.fps for rate in rates)
    native = 1 / float(np.median(np.diff(survey.times)))
    return (
        f"no clip fits: {len(parts)} scenes, the longest of {longest:.2f} s at {native:.1f} frames/s; "
        f"a clip needs {needed:.3g} s or more of evenly timed frames"
    )
