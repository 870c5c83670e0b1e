"""Batches in an order that depends on the seed and the number of samples taken alone: a run can go on exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from .sets import Buckets
from .stage import Batch, Items


class CachedPictures:
    """Pictures in [-1, 1] of another data set, each rendered once and kept in memory as bytes."""

    def __init__(self, items: Items) -> None:
        self.items = items
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        if index not in self._kept:
            picture = torch.as_tensor(self.items[index])
            self._kept[index] = ((picture + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return self._kept[index].float() / 127.5 - 1


class Batches:
    """Endless shuffled batches; `position` (samples taken so far, by all processes) is all of its state."""

    def __init__(
        self, items: Items, *, batch: int, seed: int, position: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if len(items) == 0:
            raise ValueError("the data set is empty; prepare the data first")
        self.items, self.batch, self.seed, self.position = items, batch, seed, position
        self.rank, self.world = rank, world
        self._epoch, self._order = -1, torch.empty(0)

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self.items))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.items), generator=generator)
        return int(self._order[place])

    def next(self) -> Batch:
        """This process's next batch: tensors of the items stacked; plain tensors are called "pixels"."""
        first = self.position + self.rank * self.batch
        taken = [self.items[self._index(first + k)] for k in range(self.batch)]
        self.position += self.batch * self.world
        collated = default_collate(taken)
        return collated if isinstance(collated, dict) else {"pixels": collated}

    @property
    def epochs(self) -> float:
        """How often the set was gone through."""
        return self.position / len(self.items)


class BucketBatches:
    """Batches of one size each: the bucket of which the smallest share was seen comes next."""

    def __init__(self, feeds: list[Batches]) -> None:
        self.feeds = feeds

    @property
    def position(self) -> list[int]:
        """Samples taken so far, of each bucket."""
        return [feed.position for feed in self.feeds]

    @position.setter
    def position(self, positions: list[int]) -> None:
        for feed, position in zip(self.feeds, positions, strict=True):
            feed.position = position

    def next(self) -> Batch:
        """As a Batches's."""
        return min(self.feeds, key=lambda feed: feed.epochs).next()


def batches_of(items: Items, **options: Any) -> Batches | BucketBatches:
    """The feed of a set, or of one in buckets."""
    if isinstance(items, Buckets):
        return BucketBatches([Batches(part, **options) for part in items.parts])
    return Batches(items, **options)
