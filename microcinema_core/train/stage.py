"""What a training stage gives to the one training loop.

The loop owns precision, optimizer,
averages, checkpoints and schedules; a stage owns networks, data, the loss and what a person wants to see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .shared_random import SharedRandom

Batch = dict[str, Tensor]
Parts = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Sheet:
    """A picture (3, h, w) in [0, 1]; for clips also the frames (f, 3, h, w) of an animated one, at so many a second."""

    picture: Tensor
    frames: Tensor | None = None
    fps: float = 8.0


class Items(Protocol):
    """A map-style dataset; items are tensors or dicts of tensors, and depend on the index alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor | Batch: ...


class Stage(Protocol):
    """One thing to train."""

    modules: Mapping[str, nn.Module]
    """Networks that are trained, by the part names of the exported file ("unet", "appearnet", "text", "vae"), built in
    float32. The loop casts them to the config's precision; frozen networks are kept elsewhere, by the stage alone.
    """

    @property
    def dataset(self) -> Items:
        """What a batch is made of."""
        ...

    def prepare(self) -> None:
        """Initial weights beyond the constructors' (init_from, statistics of the data). Not called on resume."""
        ...

    def group_of(self, name: str) -> str | None:
        """Learning-rate group (a key of optim.groups) of the parameter `<part>.<key>`; None leaves it frozen."""
        ...

    def to(self, device: torch.device) -> None:
        """Move what is not in `modules` (frozen networks, constants) to where training happens."""
        ...

    def loss(self, batch: Batch, draws: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Scalar loss of a collated batch, and detached scalars to log. All randomness is from the draws."""
        ...

    def sheet(self) -> Sheet:
        """What the networks do now (called with the averaged weights, no grad)."""
        ...

    def export(self, path: Path, parts: Parts) -> None:
        """Write the file that others load, from float32 averaged state dicts of `modules`."""
        ...
