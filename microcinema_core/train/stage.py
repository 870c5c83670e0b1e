"""The interface between a training stage and the training loop.

A stage owns networks, data, loss and sample sheets. The loop owns precision, optimizer, learning-rate schedule, EMA and
checkpoints.
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
"""State dicts by part name."""


@dataclass(frozen=True)
class Sheet:
    """A sample sheet.

    Attributes:
        picture: the sheet, `3 h w` in [0, 1].
        frames: of clips, the frames of an animated sheet, `f 3 h w` in [0, 1].
        fps: frame rate of the animated sheet.
    """

    picture: Tensor
    frames: Tensor | None = None
    fps: float = 8.0


class Items(Protocol):
    """A map-style data set; an item is a tensor or a dict of tensors and depends only on its index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor | Batch: ...


class Stage(Protocol):
    """The part of training that differs between models."""

    modules: Mapping[str, nn.Module]
    """The trained networks by part name of the exported file ("unet", "appearnet", "text", "vae"), built in float32.

    The loop casts them to the config's precision. Networks that are always frozen are the stage's own and not in here.
    """

    @property
    def dataset(self) -> Items:
        """The data set that batches are drawn from."""
        ...

    def prepare(self) -> None:
        """Set initial weights that constructors do not, such as those of `init_from`; skipped on resume."""
        ...

    def group_of(self, name: str) -> str | None:
        """Return the learning-rate group (a key of optim.groups) of parameter `<part>.<key>`; None freezes it."""
        ...

    def to(self, device: torch.device) -> None:
        """Move all that is not in `modules`, such as frozen networks and constants, to the training device."""
        ...

    def loss(self, batch: Batch, random: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the scalar loss of a batch, and detached scalars to log; all draws come from `random`."""
        ...

    def sheet(self) -> Sheet:
        """Make a sample sheet; called with the EMA weights and without gradients."""
        ...

    def export(self, path: Path, parts: Parts) -> None:
        """Write the exported file from float32 state dicts of `modules` with EMA weights."""
        ...
