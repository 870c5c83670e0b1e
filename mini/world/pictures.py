"""Single pictures of the mini world, rendered on demand, and how objects are chosen and placed in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .backgrounds import random_background
from .compose import over, place
from .emoji import SIZE, Emoji, open_frames, read_catalogue

PICTURE_SIZE = 128
SCALES = (0.55, 1.0)
SLACK = 0.06
PICTURE_CENTRE, PICTURE_SIDE = (0.5, 0.5), SIZE / PICTURE_SIZE
"""Placement for training text to image: in the middle, pixel for pixel. No caption says where a subject is, and the
same subject half a latent cell further has entirely other latents, each of which a model would have to learn."""


class BalancedChoice:
    """Random choice of an emoji with equally likely motion keys, however many variants each has."""

    def __init__(self, entries: Sequence[Emoji]) -> None:
        groups: dict[str, list[Emoji]] = defaultdict(list)
        for entry in entries:
            groups[entry.motion_key].append(entry)
        self._groups = list(groups.values())

    def __call__(self, rng: np.random.Generator) -> Emoji:
        """Draw an emoji."""
        group = self._groups[rng.integers(len(self._groups))]
        return group[rng.integers(len(group))]


def random_placement(
    rng: np.random.Generator, *, scales: tuple[float, float] = SCALES, slack: float = SLACK
) -> tuple[tuple[float, float], float]:
    """Draw a centre (x, y) and a side, as fractions of the picture's edge.

    The object's canvas exceeds the picture by `slack` at most; a negative one keeps it inside.
    """
    side = rng.uniform(*scales)
    room = (1 - side) / 2 + slack
    x, y = 0.5 + rng.uniform(-room, room, size=2)
    return (float(x), float(y)), float(side)


def load_sprites(folder: Path, identity: str, indices: Sequence[int]) -> Tensor:
    """Read frames of an emoji as premultiplied RGBA `f 4 112 112`, float32 in [0, 1]."""
    frames = torch.from_numpy(np.array(open_frames(folder, identity)[list(indices)]))
    return frames.permute(0, 3, 1, 2).float() / 255


class PixelDataset(Dataset[Tensor]):
    """Random single pictures: RGB `3 128 128`, float32 in [-1, 1].

    Sample `index` depends on `(seed, index)` alone. The length only bounds the indices: a shuffling sampler sees new
    pictures all the time, and a test may take the first few hundred.
    """

    def __init__(
        self, folder: str | Path, split: str = "train", *, seed: int = 0, length: int = 1 << 20
    ) -> None:
        self._folder = Path(folder)
        self._split = split
        self._seed = seed
        self._length = length
        self._choose = BalancedChoice(read_catalogue(self._folder, split))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self._length:
            raise IndexError(f"picture {index} of {self._length}")
        rng = np.random.default_rng((self._seed, index))
        entry = self._choose(rng)
        sprites = load_sprites(self._folder, entry.id, [int(rng.integers(entry.frames))])
        background = random_background(rng, size=PICTURE_SIZE, split=self._split)
        centre, side = random_placement(rng)
        placed = place(sprites, torch.tensor([centre]), torch.tensor([side]), size=PICTURE_SIZE)
        return over(placed, background.pixels)[0] * 2 - 1
