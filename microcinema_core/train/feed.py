"""Batches in an order that depends on the seed and the number of samples taken alone: a run can go on exactly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import default_collate

from .stage import Batch, Items


class Remembered:
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


class Feed:
    """Endless shuffled batches; `position` (samples taken so far) is all of its state."""

    def __init__(self, items: Items, *, batch: int, seed: int, position: int = 0) -> None:
        if len(items) == 0:
            raise ValueError("the data set is empty; prepare the data first")
        self.items, self.batch, self.seed, self.position = items, batch, seed, position
        self._epoch, self._order = -1, torch.empty(0)

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self.items))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.items), generator=generator)
        return int(self._order[place])

    def next(self) -> Batch:
        """The next batch: tensors of the items stacked; plain tensors are called "pixels"."""
        taken = [self.items[self._index(self.position + k)] for k in range(self.batch)]
        self.position += self.batch
        collated = default_collate(taken)
        return collated if isinstance(collated, dict) else {"pixels": collated}
