"""Windows: which frames of a scene make a clip at a given rate.

Frames are chosen by their times. Where a frame is near each time of the wanted rate, the clip has exactly that rate.
Otherwise every n-th frame is taken and the true rate is recorded, so that motion is even and no frame is repeated.

Scenes are the frames between cuts, which are found in the thumbnails' differences. Fades and dissolves are not found.
PySceneDetect is not used: it needs OpenCV to decode frames that are decoded here already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...diffusion.tsr import WINDOW, fps_after
from .decode import Survey

CUT_THRESHOLD = 0.08
"""Least mean absolute difference of a cut, for colours from 0 to 1."""

CUT_RATIO = 3.0
"""Least ratio of a cut's difference to the median around it, so that fast pans and flicker are no cuts."""

CUT_REACH = 8
"""Frames on either side that the median is taken over."""

NEARNESS = 0.125
"""Largest distance of a frame from its wanted time, as a part of the interval."""

EVENNESS = 0.25
"""Largest deviation of an interval between every n-th frame from their median, as a part of it."""

SLOWEST, SLOWEST_NATIVE = 0.7, 0.3
"""Least true rate as a part of the wanted one; native rates accept consecutive frames of slower videos."""


def find_cuts(changes: np.ndarray) -> list[int]:
    """Return the indices of the frames that start a new scene; `changes` as in `Survey`."""
    return [
        int(index)
        for index in np.flatnonzero(changes >= CUT_THRESHOLD)
        if index > 0 and changes[index] >= CUT_RATIO * _median_around(changes, int(index))
    ]


def _median_around(changes: np.ndarray, index: int) -> float:
    start = max(1, index - CUT_REACH)
    near = np.concatenate([changes[start:index], changes[index + 1 : index + 1 + CUT_REACH]])
    return float(np.median(near)) if len(near) else 0.0


def scene_ranges(changes: np.ndarray) -> list[tuple[int, int]]:
    """Return the ranges [start, stop) of frames between cuts, in order."""
    edges = [0, *find_cuts(changes), len(changes)]
    return list(pairwise(edges))


@dataclass(frozen=True)
class Rate:
    """Windows of `frames` frames at `fps`. With `native`, slower videos give their consecutive frames."""

    role: str
    fps: float
    frames: int
    native: bool = False


@dataclass(frozen=True)
class Window:
    """The frames of one clip.

    Attributes:
        role: "base" or "tsr".
        rate: the wanted rate in fps.
        fps: the true rate in fps.
        pts: timestamps of the clip's frames.
        start: seconds from the video's start to the first frame.
        seconds: time from the first to the last frame.
        scene: index of the scene that the frames are from.
    """

    role: str
    rate: float
    fps: float
    pts: tuple[int, ...]
    start: float
    seconds: float
    scene: int


def paper_rates(frames: int = 9, fps: float = 2.0, *, rounds: int = 2, window: int = WINDOW) -> list[Rate]:
    """Return the base model's rate, then one for each round of interpolation: 2 fps, then 8 and 32."""
    steps = [
        Rate("tsr", fps_after(fps, turn + 1), window, native=turn == rounds - 1) for turn in range(rounds)
    ]
    return [Rate("base", fps, frames), *steps]


def find_windows(survey: Survey, rates: Sequence[Rate], *, most: int) -> list[Window]:
    """Return at most `most` windows of each rate, spread over the video.

    No window crosses a cut, and no two windows of one rate overlap.
    """
    found = []
    for rate in rates:
        fitting = [
            window
            for number, (start, stop) in enumerate(scene_ranges(survey.changes))
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
    """Return windows side by side, each from the first frame at which one fits."""
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
    """Return indices into `times`, starting with `first`, and the true rate."""
    nearest = _nearest(times, times[first] + np.arange(rate.frames) / rate.fps)
    if nearest is not None:
        return nearest, rate.fps
    places = first + stride * np.arange(rate.frames)
    if places[-1] >= len(times):
        return None
    gaps = np.diff(times[places])
    middle = float(np.median(gaps))
    true = (rate.frames - 1) / float(times[places[-1]] - times[places[0]])
    slow = true < (SLOWEST_NATIVE if rate.native else SLOWEST) * rate.fps
    if slow or np.abs(gaps - middle).max() > EVENNESS * middle:
        return None
    return places, true


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Return the frames nearest to the wanted times, if each is near enough and none is used twice."""
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


def explain_no_window(survey: Survey, rates: Sequence[Rate]) -> str:
    """Return why a video gives no window at all, for the report."""
    ranges = scene_ranges(survey.changes)
    longest = max(float(survey.times[stop - 1] - survey.times[start]) for start, stop in ranges)
    needed = min((rate.frames - 1) / rate.fps for rate in rates)
    native = 1 / float(np.median(np.diff(survey.times)))
    return (
        f"no clip fits: {len(ranges)} scenes, the longest of {longest:.2f} s at {native:.1f} frames/s; "
        f"a clip needs at least {needed:.3g} s of evenly timed frames"
    )
