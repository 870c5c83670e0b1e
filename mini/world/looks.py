"""Which subjects look alike, by small pictures of their frames; the splits are kept apart by it.

Some art is filed under two code points, or differs in a detail that 128 pixels hardly show: keycap 3 with and without
a variation selector, "person" in one skin tone and "man: blond hair" in another, the kiss of two people and of two men,
clocks half an hour apart. Motion keys (`motion_split`) do not know of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .motion_split import Split, split_by_looks

ALIKE = 0.145
"""Subjects that are no further apart look alike.

Chosen by eye on the closest pair of each test subject, in order of distance: nearly all below differ in a detail (a
child of a family, a beard, the text on a button); above it begin pairs that share no more than outline and colour (a
moon cake and a pie, an ATM sign and a blue square).
"""
SAMPLED = 8
"""Frames of an animation that are compared."""
EDGE = 16
"""Edge of the small pictures in pixels."""
_ROWS = 64


@dataclass(frozen=True)
class Looks:
    """Small pictures of subjects.

    Attributes:
        pictures: premultiplied RGBA in [0, 1], flattened, `n SAMPLED EDGE * EDGE * 4`.
        areas: mean alpha of each, `n SAMPLED`.
    """

    pictures: Tensor
    areas: Tensor

    @classmethod
    def of(cls, subjects: Iterable[np.ndarray]) -> Looks:
        """Shrink subjects' frames, uint8 `frames s s 4` each, where s is a multiple of `EDGE`."""
        small = torch.stack([torch.from_numpy(_shrink(frames)) for frames in subjects])
        return cls(small.flatten(2), small[..., 3].mean((2, 3)))

    def __getitem__(self, index: Sequence[int]) -> Looks:
        return Looks(self.pictures[index], self.areas[index])

    def __len__(self) -> int:
        return len(self.pictures)


def _shrink(frames: np.ndarray) -> np.ndarray:
    """Average the sampled frames to float32 `SAMPLED EDGE EDGE 4` in [0, 1]."""
    sampled = np.linspace(0, len(frames) - 1, SAMPLED).round().astype(int)
    block = frames.shape[1] // EDGE
    tiles = frames[sampled].reshape(SAMPLED, EDGE, block, EDGE, block, 4)
    return (tiles.mean((2, 4)) / 255).astype(np.float32)


def distances(some: Looks, others: Looks) -> Tensor:
    """Return how different each of `some` looks from each of `others`, (n, m), 0 if they are equal.

    Two frames differ by the root mean square of their difference, relative to the larger one's area. Each frame of one
    subject is compared with the other's nearest, and the mean is taken; of both directions the smaller one counts. So
    an animation is like a still that shows one of its frames.
    """
    flat, areas = others.pictures.flatten(0, 1), others.areas.flatten()
    rows = []
    for start in range(0, len(some), _ROWS):
        pictures = some.pictures[start : start + _ROWS].flatten(0, 1)
        area = some.areas[start : start + _ROWS].reshape(-1, 1)
        apart = torch.cdist(pictures, flat) / (flat.shape[1] * torch.maximum(area, areas)).sqrt()
        grid = apart.view(-1, SAMPLED, len(others), SAMPLED)
        rows.append(torch.minimum(grid.amin(3).mean(1), grid.amin(1).mean(2)))
    return torch.cat(rows)


def alike(some: Looks, others: Looks) -> Tensor:
    """Return whether each of `some` looks like each of `others`, bool (n, m)."""
    return distances(some, others) <= ALIKE


def splits(keys: Sequence[str], subjects: Iterable[np.ndarray]) -> dict[str, Split]:
    """Return the split of each motion key.

    Args:
        keys: the motion key of each subject.
        subjects: the frames of each, as for `Looks.of`.
    """
    shown = Looks.of(subjects)

    def twins(some: Sequence[int], others: Sequence[int]) -> list[int]:
        if not some or not others:
            return []
        return [
            index for index, twin in zip(some, alike(shown[some], shown[others]).any(1), strict=True) if twin
        ]

    return split_by_looks(keys, twins)
