"""Which clips are measured: a fixed function of the prepared emoji's test split, rendered, never encoded on disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..world.backgrounds import random_background
from ..world.captions import make_captions
from ..world.compose import place
from ..world.emoji import Emoji, read_catalogue
from ..world.pictures import PICTURE_SIZE, load_sprites, random_placement
from ..world.render import MOTIONS, Clip, Motion, render

CLIPS_A_KEY = 4
SEED = 2024


@dataclass(frozen=True)
class Case:
    """A real clip, what is said of it, and the clip that shows how close another real clip comes.

    ceiling: the same variant in the same place on the same background, at another phase of its loop.
    """

    clip: Clip
    caption: str
    ceiling: Clip

    @property
    def key(self) -> str:
        return self.clip.emoji.motion_key


def cases(folder: Path, *, a_key: int = CLIPS_A_KEY, split: str = "test") -> list[Case]:
    """`a_key` clips of each motion key whose loop closes: its variants in turn, each at a phase, place and
    background of its own; nothing but the animation moves."""
    chosen = []
    for entries in _by_key(e for e in read_catalogue(folder, split) if e.animated and e.closes):
        for j in range(a_key):
            entry = entries[j % len(entries)]
            chosen.append(_case(entry, np.random.default_rng((SEED, *entry.id.encode(), j)), split))
    return chosen


def _case(entry: Emoji, rng: np.random.Generator, split: str) -> Case:
    clip = _placed(entry, rng, split)
    away = int(rng.integers(entry.loop_frames // 4, 3 * entry.loop_frames // 4 + 1))
    ceiling = replace(clip, phase=(clip.phase + away) % entry.loop_frames)
    return Case(clip, _caption(clip, rng), ceiling)


@dataclass(frozen=True)
class Direction:
    """One of the six motions asked of a centre frame."""

    clip: Clip
    caption: str

    @property
    def key(self) -> str:
        return self.clip.emoji.motion_key


def directions(folder: Path, *, subjects: int, split: str = "test", seed: int = SEED) -> list[Direction]:
    """`subjects` centre frames, one a motion key, in each of the six added motions; the background is still.

    The six of one subject follow each other, in the order of `MOTIONS`, and differ in nothing else.
    """
    chosen = []
    groups = _by_key(e for e in read_catalogue(folder, split) if e.closes)
    order = np.random.default_rng(seed).permutation(len(groups))[:subjects]
    for entries in (groups[i] for i in order):
        rng = np.random.default_rng((seed, *entries[0].id.encode()))
        placed = _placed(entries[rng.integers(len(entries))], rng, split)
        for motion in MOTIONS:
            speed = 0.21 if motion in ("towards", "away") else 0.175  # the middle of what training saw
            clip = replace(placed, motion=motion, speed=speed)
            chosen.append(Direction(clip, _caption(clip, rng, motion)))
    return chosen


def _placed(entry: Emoji, rng: np.random.Generator, split: str) -> Clip:
    background = random_background(rng, size=PICTURE_SIZE, split=split)
    centre, side = random_placement(rng)
    return Clip(entry, background, int(rng.integers(entry.loop_frames)), centre, side)


def _caption(clip: Clip, rng: np.random.Generator, motion: Motion | None = None) -> str:
    ground = clip.background
    return make_captions(
        clip.emoji, rng, count=1, motion=motion, colour=ground.colour, gradient=ground.kind == "gradient"
    )[0]


def _by_key(entries: Iterable[Emoji]) -> list[list[Emoji]]:
    groups: dict[str, list[Emoji]] = defaultdict(list)
    for entry in entries:
        groups[entry.motion_key].append(entry)
    return [sorted(groups[key], key=lambda e: e.id) for key in sorted(groups)]


def frames(folder: Path, clips: Sequence[Clip], times: Sequence[int]) -> Tensor:
    """Rendered clips `n f c h w` in [-1, 1]."""
    return torch.stack([render(folder, clip, times) for clip in clips])


def silhouettes(folder: Path, clips: Sequence[Clip], time: int) -> Tensor:
    """Where the object is at one time: its alpha `n h w` in [0, 1]."""
    masks = []
    for clip in clips:
        sprites = load_sprites(folder, clip.emoji.id, clip.loop_indices([time]))
        centres, sides = clip.placements([time])
        masks.append(place(sprites, centres, sides, size=PICTURE_SIZE)[0, 3])
    return torch.stack(masks)


def backgrounds(clips: Sequence[Clip]) -> Tensor:
    """`n c h w` in [-1, 1]."""
    return torch.stack([clip.background.pixels for clip in clips]) * 2 - 1
