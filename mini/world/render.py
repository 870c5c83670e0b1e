"""A deterministic renderer of clips on the mini world's timeline.

The timeline has 129 frames at 32 fps; the centre frame is number 64. The base model makes nine frames at stride 16
(2 fps). Temporal super-resolution fills in strides 4 and 1 (8 and 32 fps).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from microcinema_core.config import centre_index

from .backgrounds import Background
from .compose import over, place
from .emoji import Emoji
from .pictures import PICTURE_SIZE, load_sprites

PLAY_FPS = 32
TIMELINE = 129
CENTRE_TIME = centre_index(TIMELINE)
BASE_STRIDE = 16
BASE_TIMES = tuple(range(0, TIMELINE, BASE_STRIDE))
CENTRE_INDEX = centre_index(len(BASE_TIMES))
"""The centre frame among `BASE_TIMES`."""

Motion = Literal["left", "right", "up", "down", "towards", "away"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
GROWTH = {"towards": 1, "away": -1}


@dataclass(frozen=True)
class Clip:
    """An emoji's animation over a background, with or without an added motion.

    Attributes:
        emoji: the animated object.
        background: what is behind it, which does not move.
        phase: index of the animation's frame at time 0. It may be negative if no earlier frame is rendered.
        centre: position (x, y) at the centre frame, in fractions of the picture's edge. It does not depend on the
            motion, so the centre frame alone does not reveal the motion.
        side: size at the centre frame, in fractions of the picture's edge.
        motion: the added motion.
        speed: speed of the added motion, per second: change of position for the four directions, of the size's
            logarithm for `towards` and `away`.
        frozen: whether the animation stands still, at the picture of the centre frame, so that only the added motion
            moves.
    """

    emoji: Emoji
    background: Background
    phase: int = 0
    centre: tuple[float, float] = (0.5, 0.5)
    side: float = 0.8
    motion: Motion | None = None
    speed: float = 0.0
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.motion not in (None, *MOTIONS):
            raise ValueError(
                f"motion {self.motion!r} is unknown; expected None or one of {', '.join(MOTIONS)}"
            )

    def loop_indices(self, times: Sequence[int]) -> list[int]:
        """Return the animation's frame shown at each time.

        Raises:
            ValueError: a loop that does not close would have to wrap.
        """
        indices = [self.phase + (CENTRE_TIME if self.frozen else time) for time in times]
        length = self.emoji.loop_frames
        if self.emoji.closes:
            return [index % length for index in indices]
        if min(indices) < 0 or max(indices) >= length:
            raise ValueError(
                f"{self.emoji.id} does not loop: frames {min(indices)}..{max(indices)} were requested, "
                f"it has 0..{length - 1}; choose another phase, or a clip whose loop closes"
            )
        return indices

    def placements(self, times: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return centres (n, 2) and sides (n,) of the object at each time; n = 1 if it stays in place."""
        if self.motion is None:
            times = [CENTRE_TIME]
        seconds = (torch.tensor(times, dtype=torch.float64) - CENTRE_TIME) / PLAY_FPS
        step = torch.tensor(STEPS.get(self.motion or "", (0, 0)), dtype=torch.float64)
        growth = GROWTH.get(self.motion or "", 0)
        centres = torch.tensor(self.centre, dtype=torch.float64) + seconds[:, None] * self.speed * step
        return centres, self.side * torch.exp(growth * self.speed * seconds)


def render(folder: Path, clip: Clip, times: Sequence[int], *, size: int = PICTURE_SIZE) -> Tensor:
    """Render the clip's frames at times of the timeline: RGB `f 3 size size`, float32 in [-1, 1].

    The same clip and time give the same frame, whichever other times are rendered with it.

    Args:
        folder: the prepared emoji folder.
        clip: what to render.
        times: frame numbers of the timeline, 0 to 128.
        size: pixels along the picture's edge.

    Raises:
        ValueError: a time outside 0..128, or a loop that cannot wrap.
    """
    if not all(0 <= time < TIMELINE for time in times):
        raise ValueError(f"times {list(times)} leave the timeline 0..{TIMELINE - 1}")
    indices = clip.loop_indices(times)
    distinct = sorted(set(indices))
    sprites = load_sprites(folder, clip.emoji.id, distinct)
    if len(distinct) != len(indices) or distinct != indices:
        sprites = sprites[[distinct.index(index) for index in indices]]
    centres, sides = clip.placements(times)
    return over(place(sprites, centres, sides, size=size), clip.background.pixels) * 2 - 1
