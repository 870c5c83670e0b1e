"""Random numbers of a training step that are drawn on the device, so that no step waits for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from microcinema_core.train.shared_random import SharedRandom


class DeviceRandom(SharedRandom):
    """A `SharedRandom` of one process whose generator is the device's own."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__(generator, device=generator.device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def uniform(self, count: int) -> Tensor:
        """Draw (count,) uniform numbers in [0, 1)."""
        return torch.rand(count, generator=self.generator, device=self.device)

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Draw integers in [0, high)."""
        return torch.randint(0, high, shape, generator=self.generator, device=self.device)

    def between(self, low: float | Tensor, high: float | Tensor, count: int) -> Tensor:
        """Draw (count,) uniform numbers between two bounds."""
        return low + (high - low) * self.uniform(count)

    def kinds(self, shares: list[float], count: int) -> Tensor:
        """Draw (count,) kinds with these probabilities, which add up to 1."""
        ends, drawn = 0.0, torch.zeros(count, dtype=torch.long, device=self.device)
        numbers = self.uniform(count)
        for share in shares[:-1]:
            ends += share
            drawn += numbers >= ends
        return drawn
