"""The evaluated clips: a fixed function of the prepared emoji's test split, rendered on demand."""

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
from ..world.compose import over, place
from ..world.emoji import Emoji, read_catalogue
from ..world.pictures import PICTURE_SIZE, load_sprites, random_placement
from ..world.render import MOTIONS, Clip, Motion, render

CLIPS_PER_KEY = 4
SEED = 2024


@dataclass(frozen=True)
class CaptionedClip:
    """A real clip and its caption."""

    clip: Clip
    caption: str

    @property
    def key(self) -> str:
        """The motion key of its emoji."""
        return self.clip.emoji.motion_key


@dataclass(frozen=True)
class EvaluationClip(CaptionedClip):
    """A real clip, its caption, and a second real clip for the upper bound.

    Attributes:
        ceiling: the same emoji in the same place on the same background, at another phase of its loop. Its distance
            from the clip is what a perfect model would reach.
    """

    ceiling: Clip


def evaluation_clips(
    folder: Path, *, clips_per_key: int = CLIPS_PER_KEY, split: str = "test"
) -> list[EvaluationClip]:
    """Choose clips of each motion key whose loop closes; nothing but the animation moves.

    The variants of a key take turns, and each clip has its own phase, placement and background.
    """
    chosen = []
    for entries in _by_key(e for e in read_catalogue(folder, split) if e.animated and e.closes):
        for j in range(clips_per_key):
            entry = entries[j % len(entries)]
            rng = np.random.default_rng((SEED, *entry.id.encode(), j))
            chosen.append(_evaluation_clip(entry, rng, split))
    return chosen


def _evaluation_clip(entry: Emoji, rng: np.random.Generator, split: str) -> EvaluationClip:
    clip = _placed(entry, rng, split)
    away = int(rng.integers(entry.loop_frames // 4, 3 * entry.loop_frames // 4 + 1))
    ceiling = replace(clip, phase=(clip.phase + away) % entry.loop_frames)
    return EvaluationClip(clip, _caption(clip, rng), ceiling)


def motion_clips(
    folder: Path, *, subjects: int, split: str = "test", seed: int = SEED, stills: bool = False
) -> list[CaptionedClip]:
    """Choose `subjects` centre frames, one per motion key, and add each of the six motions; the background is static.

    With `stills` they are of subjects without an animation.

    The six clips of one subject are adjacent, in the order of `MOTIONS`, and differ in nothing else.
    """
    chosen = []
    groups = _by_key(e for e in read_catalogue(folder, split) if e.closes and not (stills and e.animated))
    order = np.random.default_rng(seed).permutation(len(groups))[:subjects]
    for entries in (groups[i] for i in order):
        rng = np.random.default_rng((seed, *entries[0].id.encode()))
        placed = _placed(entries[rng.integers(len(entries))], rng, split)
        for motion in MOTIONS:
            speed = 0.21 if motion in ("towards", "away") else 0.175  # the middle of the training range
            clip = replace(placed, motion=motion, speed=speed)
            chosen.append(CaptionedClip(clip, _caption(clip, rng, motion)))
    return chosen


def _placed(entry: Emoji, rng: np.random.Generator, split: str) -> Clip:
    background = random_background(rng, size=PICTURE_SIZE, split=split)
    centre, side = random_placement(rng)
    return Clip(entry, background, int(rng.integers(entry.loop_frames)), centre, side)


def _caption(clip: Clip, rng: np.random.Generator, motion: Motion | None = None) -> str:
    background = clip.background
    gradient = background.kind == "gradient"
    return make_captions(
        clip.emoji, rng, count=1, motion=motion, colour=background.colour, gradient=gradient
    )[0]


def _by_key(entries: Iterable[Emoji]) -> list[list[Emoji]]:
    groups: dict[str, list[Emoji]] = defaultdict(list)
    for entry in entries:
        groups[entry.motion_key].append(entry)
    return [sorted(groups[key], key=lambda e: e.id) for key in sorted(groups)]


def frames(folder: Path, clips: Sequence[Clip], times: Sequence[int]) -> Tensor:
    """Render clips as `n f c h w` in [-1, 1]."""
    return torch.stack([render(folder, clip, times) for clip in clips])


def render_with_alpha(folder: Path, clip: Clip, times: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Render a clip, `f c h w` in [-1, 1], and the alpha of its object, `f h w` in [0, 1]."""
    sprites = load_sprites(folder, clip.emoji.id, clip.loop_indices(times))
    placed = place(sprites, *clip.placements(times), size=PICTURE_SIZE)
    return over(placed, clip.background.pixels) * 2 - 1, placed[:, 3]


def silhouettes(folder: Path, clips: Sequence[Clip], time: int) -> Tensor:
    """Render the alpha of the clips' objects at one time, `n h w` in [0, 1]."""
    masks = []
    for clip in clips:
        sprites = load_sprites(folder, clip.emoji.id, clip.loop_indices([time]))
        centres, sides = clip.placements([time])
        masks.append(place(sprites, centres, sides, size=PICTURE_SIZE)[0, 3])
    return torch.stack(masks)


def backgrounds(clips: Sequence[Clip]) -> Tensor:
    """Return the clips' backgrounds, `n c h w` in [-1, 1]."""
    return torch.stack([clip.background.pixels for clip in clips]) * 2 - 1
