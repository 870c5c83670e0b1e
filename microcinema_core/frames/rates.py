"""Frame rates: exact fractions, and lower rates that leave out whole frames."""

from __future__ import annotations

import math
from fractions import Fraction

_MAX_DENOMINATOR = 1001
LOWEST = 0.01
"""The lowest frame rate of a video."""
TOLERANCE = 2e-3
"""How far a ratio of rates may be from a whole number, relative to it: 29.97 and 15 fps are 2."""


def frame_rate(fps: float, name: str = "fps") -> Fraction:
    """Return `fps` as an exact fraction: 2997/125 for 23.976.

    Args:
        fps: frames a second.
        name: its name, for the message.

    Raises:
        ValueError: `fps` is not a finite number of 1/1001 or more.
    """
    if not math.isfinite(fps) or fps * _MAX_DENOMINATOR < 1:
        raise ValueError(f"{name} must be a number of 0.001 or more, but {fps:g} was given.")
    return Fraction(fps).limit_denominator(_MAX_DENOMINATOR)


def frames_per_kept(fps: float, target_fps: float) -> int:
    """Return n if every nth frame gives the target rate: 4 from 32 to 8 fps.

    Args:
        fps: frame rate of the frames.
        target_fps: frame rate of the video; 0 is that of the frames.

    Raises:
        ValueError: a target above the frames' rate or below `LOWEST`, or one that does not divide the frames' rate.
    """
    if not target_fps:
        return 1
    every = round(fps / max(target_fps, LOWEST))
    if every < 1 or target_fps < LOWEST or abs(fps / target_fps - every) > TOLERANCE * every:
        possible = ", ".join(f"{fps / n:.6g}" for n in range(1, 5))
        raise ValueError(
            f"target_fps is {target_fps:g}, but of {fps:g} frames a second only every 2nd, 3rd ... can be kept: use "
            f"{possible} ..., or 0 to keep all."
        )
    return every
