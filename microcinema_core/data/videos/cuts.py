"""Scenes of a video: a content detector on the thumbnails' differences.

A cut is a frame that differs much from the one before, and much more than its neighbours do, so that a fast pan or a
flicker is none. Fades and dissolves are not found. A library (PySceneDetect) was not taken, as it needs OpenCV for
frames that are decoded here already.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

THRESHOLD = 0.08
"""Least mean absolute difference of a cut, of colours 0 to 1."""

RATIO = 3.0
"""A cut's difference over the median around it."""

REACH = 8
"""Frames on either side that the median is taken of."""


def cuts(changes: np.ndarray, *, threshold: float = THRESHOLD, ratio: float = RATIO) -> list[int]:
    """Indices of the frames that start a new scene; `changes` as in `Survey`."""
    return [
        int(index)
        for index in np.flatnonzero(changes >= threshold)
        if index > 0 and changes[index] >= ratio * _around(changes, int(index))
    ]


def _around(changes: np.ndarray, index: int) -> float:
    start = max(1, index - REACH)
    near = np.concatenate([changes[start:index], changes[index + 1 : index + 1 + REACH]])
    return float(np.median(near)) if len(near) else 0.0


def scenes(changes: np.ndarray) -> list[tuple[int, int]]:
    """Ranges [start, stop) of frames between cuts, in order."""
    edges = [0, *cuts(changes), len(changes)]
    return list(pairwise(edges))
