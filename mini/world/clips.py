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
from .render import BASE_TIMES, CENTRE_TIME, GROWTH, MOTIONS, PLAY_FPS, TIMELINE, Clip, Motion

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
RIGID_SPEED, RIGID_GROWTH = 0.125, 0.21
"""Speeds of rigid motions. A path takes one latent cell a key frame: half a cell further is an entirely other code."""
RIGID_CENTRED = 0.5
"""Share of the clips of a rigid set whose object is in the middle, pixel for pixel, as text to image draws it."""
RIGID_MOVED_SHARE = 0.25
"""`moved` of the rigid sets that the family is trained on."""
NAMED_SHARE = 0.4
"""`named` of the pictures that the family is trained on."""


def rigid_speed(motion: Motion | None) -> float:
    """Return the one speed of a motion in the rigid sets."""
    return RIGID_GROWTH if motion in GROWTH else RIGID_SPEED


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
            "frozen": clip.frozen,
            "background": clip.background.kind,
            "colour": clip.background.colour,
            "captions": list(self.captions),
        }


class ClipSampler:
    """Random access to an endless set of samples of one role.

    Motion keys are equally likely. Of base and TSR clips, the share `moved` are animations with an added motion, and
    10% are stills with one. Base clips wrap, so they need loops that close. TSR windows need only 5 to 17 frames of a
    loop, and half of them are at either stride.

    A `rigid` set leaves nothing about an added motion open that its caption does not name: the animation is frozen,
    any subject may move, and there is one speed. Of the pictures of a set `image`, the share `named` has captions that
    name a motion, as the prompts of videos do, though a picture shows none.
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
        rigid: bool = False,
        named: float = 0.0,
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
        self._moved, self._rigid, self._named = moved, rigid, named
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
        moved = kind < STILL_SHARE + self._moved
        entry = self._entry(rng, still=kind < STILL_SHARE, moved=moved)
        motion = MOTIONS[rng.integers(len(MOTIONS))] if moved else None
        frozen = self._rigid and moved
        phase = random_phase(entry, rng, (CENTRE_TIME,) if frozen else times)
        clip = self._clip(entry, rng, phase=phase, motion=motion, frozen=frozen)
        return self._with_captions(clip, rng, times, fps)

    def _entry(self, rng: np.random.Generator, *, still: bool, moved: bool) -> Emoji:
        if self._rigid and moved:
            return self._any(rng)
        return (self._stills if still else self._moving)(rng)

    def _picture(self, rng: np.random.Generator) -> ClipSample:
        entry = self._any(rng)
        phase = int(rng.integers(entry.frames)) - CENTRE_TIME
        clip = self._clip(entry, rng, phase=phase, motion=None)
        motion = MOTIONS[rng.integers(len(MOTIONS))] if self._named and rng.random() < self._named else None
        return self._with_captions(clip, rng, (CENTRE_TIME,), 0.0, motion)

    def _clip(
        self,
        entry: Emoji,
        rng: np.random.Generator,
        *,
        phase: int,
        motion: Motion | None,
        frozen: bool = False,
    ) -> Clip:
        single = self.role == "image"
        kinds = PICTURE_KINDS if single else KINDS
        background = random_background(rng, size=PICTURE_SIZE, split=self.split, kinds=kinds)
        middle = single or (self._rigid and rng.random() < RIGID_CENTRED)
        centre, side = (PICTURE_CENTRE, PICTURE_SIDE) if middle else random_placement(rng)
        speed = self._speed(rng, motion)
        return Clip(entry, background, phase, centre, side, motion, speed if motion else 0.0, frozen)

    def _speed(self, rng: np.random.Generator, motion: Motion | None) -> float:
        if self._rigid:
            return rigid_speed(motion)
        return float(rng.uniform(*(GROWTH_SPEEDS if motion in GROWTH else PATH_SPEEDS)))

    def _with_captions(
        self,
        clip: Clip,
        rng: np.random.Generator,
        times: Sequence[int],
        fps: float,
        motion: Motion | None = None,
    ) -> ClipSample:
        captions = make_captions(
            clip.emoji,
            rng,
            count=self._captions,
            motion=motion or clip.motion,
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
