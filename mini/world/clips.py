"""The clips of a training set, by random access: sample `index` depends on (seed, split, index) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .backgrounds import KINDS, PICTURE_KINDS, random_background
from .captions import make_captions
from .emoji import Emoji, read_catalogue
from .pictures import (
    PICTURE_CENTRE,
    PICTURE_SIDE,
    PICTURE_SIZE,
    BalancedChoice,
    random_placement,
)
from .render import BASE_TIMES, CENTRE_TIME, MOTIONS, PLAY_FPS, TIMELINE, Clip, Motion

SetRole = Literal["image", "base", "tsr"]
"""The stage that a set trains."""
SET_ROLES: tuple[SetRole, ...] = ("image", "base", "tsr")
FRAMES: dict[SetRole, int] = {"image": 1, "base": len(BASE_TIMES), "tsr": 5}
TSR_STRIDES = (4, 1)
TSR_SPAN = 4 * max(TSR_STRIDES)
FPS: dict[SetRole, tuple[float, ...]] = {"image": (0.0,), "base": (2.0,), "tsr": (8.0, 32.0)}

MOVED_SHARE = 0.35
"""Share of base and TSR clips that are animations with an added motion."""
STILL_SHARE = 0.1
"""Share of base and TSR clips that are stills with an added motion."""
PATH_SPEEDS = (0.1, 0.25)
GROWTH_SPEEDS = (0.12, 0.3)


@dataclass(frozen=True)
class ClipSample:
    """A clip, the times to render, their frame rate (0 for single pictures), and captions."""

    clip: Clip
    times: tuple[int, ...]
    fps: float
    captions: tuple[str, ...]

    def recipe(self) -> dict:
        """Return what identifies the clip, as JSON values."""
        clip = self.clip
        return {
            "id": clip.emoji.id,
            "times": list(self.times),
            "phase": clip.phase,
            "centre": list(clip.centre),
            "side": clip.side,
            "motion": clip.motion,
            "speed": clip.speed,
            "background": clip.background.kind,
            "colour": clip.background.colour,
            "captions": list(self.captions),
        }


class ClipSampler:
    """Random access to an endless set of samples of one role.

    Motion keys are equally likely. Of base and TSR clips, the share `moved` are animations with an added motion, and
    10% are stills with one. Base clips wrap, so they need loops that close. TSR windows need only 5 to 17 frames of a
    loop, and half of them are at either stride.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        role: SetRole,
        *,
        seed: int = 0,
        captions: int = 4,
        moved: float = MOVED_SHARE,
    ) -> None:
        if role not in SET_ROLES:
            raise ValueError(f"role {role!r} is unknown; expected one of {', '.join(SET_ROLES)}")
        self.folder, self.split, self.role, self.seed, self._captions = (
            Path(folder),
            split,
            role,
            seed,
            captions,
        )
        self._moved = moved
        entries = read_catalogue(self.folder, split)
        self.motion_keys: list[str] = sorted({entry.motion_key for entry in entries})
        moving = [
            e for e in entries if e.animated and (e.closes or (role != "base" and e.loop_frames > TSR_SPAN))
        ]
        self._any = BalancedChoice(entries)
        self._moving = BalancedChoice(moving)
        self._stills = BalancedChoice([e for e in entries if not e.animated])

    def __getitem__(self, index: int) -> ClipSample:
        # The role's number makes sets of one seed differ; the splits differ anyway, by their emoji.
        rng = np.random.default_rng((self.seed, SET_ROLES.index(self.role), index))
        if self.role == "image":
            return self._picture(rng)
        times, fps = (BASE_TIMES, 2.0) if self.role == "base" else _window(rng, TSR_STRIDES[index % 2])
        kind = rng.random()
        entry = (self._stills if kind < STILL_SHARE else self._moving)(rng)
        moved = kind < STILL_SHARE + self._moved
        motion = MOTIONS[rng.integers(len(MOTIONS))] if moved else None
        clip = self._clip(entry, rng, phase=random_phase(entry, rng, times), motion=motion)
        return self._with_captions(clip, rng, times, fps)

    def _picture(self, rng: np.random.Generator) -> ClipSample:
        entry = self._any(rng)
        phase = int(rng.integers(entry.frames)) - CENTRE_TIME
        clip = self._clip(entry, rng, phase=phase, motion=None)
        return self._with_captions(clip, rng, (CENTRE_TIME,), 0.0)

    def _clip(self, entry: Emoji, rng: np.random.Generator, *, phase: int, motion: Motion | None) -> Clip:
        single = self.role == "image"
        kinds = PICTURE_KINDS if single else KINDS
        background = random_background(rng, size=PICTURE_SIZE, split=self.split, kinds=kinds)
        centre, side = (PICTURE_CENTRE, PICTURE_SIDE) if single else random_placement(rng)
        speed = rng.uniform(*(GROWTH_SPEEDS if motion in ("towards", "away") else PATH_SPEEDS))
        return Clip(entry, background, phase, centre, side, motion, float(speed) if motion else 0.0)

    def _with_captions(
        self, clip: Clip, rng: np.random.Generator, times: Sequence[int], fps: float
    ) -> ClipSample:
        captions = make_captions(
            clip.emoji,
            rng,
            count=self._captions,
            motion=clip.motion,
            colour=clip.background.colour,
            gradient=clip.background.kind == "gradient",
        )
        return ClipSample(clip, tuple(times), fps, tuple(captions))


def _window(rng: np.random.Generator, stride: int) -> tuple[tuple[int, ...], float]:
    """Draw five times at `stride`, from one frame of the coarser level to the next, and return their frame rate."""
    span = 4 * stride
    start = span * int(rng.integers((TIMELINE - 1) // span))
    return tuple(range(start, start + span + 1, stride)), PLAY_FPS / stride


def random_phase(entry: Emoji, rng: np.random.Generator, times: Sequence[int]) -> int:
    """Draw a phase at which the times can be rendered: any for closed loops, otherwise one that needs no wrapping.

    Raises:
        ValueError: the animation is too short, and does not loop.
    """
    if entry.closes:
        return int(rng.integers(entry.loop_frames))
    room = entry.loop_frames - (max(times) - min(times))
    if room < 1:
        raise ValueError(
            f"{entry.id} has {entry.loop_frames} frames and does not loop; times {times} do not fit"
        )
    return int(rng.integers(room)) - min(times)
