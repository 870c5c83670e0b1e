"""A deterministic renderer of clips on the mini world's timeline.

The timeline has 129 frames at 32 frames a second; the centre frame is number 64. Nine frames at stride 16 are
the base model's (2 fps), and strides 4 and 1 (8 and 32 fps) are what temporal super-resolution fills in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from .backgrounds import Background
from .compose import over, place
from .emoji import Emoji
from .pictures import PICTURE_SIZE, load_sprites

PLAY_FPS = 32
TIMELINE = 129
CENTRE = TIMELINE // 2
BASE_STRIDE = 16
BASE_TIMES = tuple(range(0, TIMELINE, BASE_STRIDE))

Motion = Literal["left", "right", "up", "down", "towards", "away"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_GROWTH = {"towards": 1, "away": -1}


@dataclass(frozen=True)
class Clip:
    """What is shown. Everything spatial is a fraction of the picture's edge.

    `centre` (x, y) and `side` hold at the centre frame, whatever the motion, so that frame tells nothing
    about it. `speed` is per second: of the path for the four directions, of the size's logarithm for the
    other two. `phase` is the loop's index at time 0, negative where no frame before the loop is asked for.
    """

    emoji: Emoji
    background: Background
    phase: int = 0
    centre: tuple[float, float] = (0.5, 0.5)
    side: float = 0.8
    motion: Motion | None = None
    speed: float = 0.0

    def __post_init__(self) -> None:
        if self.motion not in (None, *MOTIONS):
            raise ValueError(
                f"motion {self.motion!r} is unknown; expected None or one of {', '.join(MOTIONS)}"
            )

    def loop_indices(self, times: Sequence[int]) -> list[int]:
        """The frame of the animation shown at each time.

        Raises:
            ValueError: a loop that does not close would have to wrap.
        """
        indices = [self.phase + time for time in times]
        length = self.emoji.loop_frames
        if self.emoji.closes:
            return [index % length for index in indices]
        if min(indices) < 0 or max(indices) >= length:
            raise ValueError(
                f"{self.emoji.id} does not loop: frames {min(indices)}..{max(indices)} were asked for, "
                f"it has 0..{length - 1}; choose another phase, or a clip whose loop closes"
            )
        return indices

    def placements(self, times: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Centres (n, 2) and sides (n,) of the object at each time; n = 1 where it stays in place."""
        if self.motion is None:
            times = [CENTRE]
        seconds = (torch.tensor(times, dtype=torch.float64) - CENTRE) / PLAY_FPS
        step = torch.tensor(_STEPS.get(self.motion or "", (0, 0)), dtype=torch.float64)
        growth = _GROWTH.get(self.motion or "", 0)
        centres = torch.tensor(self.centre, dtype=torch.float64) + seconds[:, None] * self.speed * step
        return centres, self.side * torch.exp(growth * self.speed * seconds)


def render(folder: Path, clip: Clip, times: Sequence[int], *, size: int = PICTURE_SIZE) -> Tensor:
    """The clip's frames at absolute times of the timeline: float32 (n, 3, size, size) in [-1, 1].

    `folder` is the prepared emoji folder. The same clip and time give the same frame, alone or among others.

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
