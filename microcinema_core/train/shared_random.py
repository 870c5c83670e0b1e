"""Random numbers of a training step, the same whatever the number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True)
class SharedRandom:
    """One generator, on the CPU, in the same state in every process.

    Each process draws the numbers of all of them and takes its share, so that two processes train to what one with
    twice the batch does. The draws of a clip cost a thousandth of its step.
    """

    generator: torch.Generator
    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers; the first axis is the batch."""
        return self._ours(torch.randn((shape[0] * self.world, *shape[1:]), generator=self.generator))

    def uniform(self, count: int) -> Tensor:
        """(count,) in [0, 1)."""
        return self._ours(torch.rand(count * self.world, generator=self.generator))

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Whole numbers in [0, high); the first axis is the batch."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._ours(torch.randint(0, high, whole, generator=self.generator))

    def _ours(self, drawn: Tensor) -> Tensor:
        return drawn.chunk(self.world)[self.rank].to(self.device)
