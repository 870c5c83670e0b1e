"""Layers as a training step on the CPU wants them; parameters and numerics are torch.nn's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """torch's kernel is ten times slower on channels-last tensors than on contiguous ones, convolutions are not.

    So the norm is taken on a contiguous copy, and what follows it sees channels-last.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x.contiguous())
        return y.contiguous(memory_format=torch.channels_last) if y.ndim == 4 else y


class Operations:
    """The namespace that networks are built with for training."""

    Linear = nn.Linear
    Conv1d = nn.Conv1d
    Conv2d = nn.Conv2d
    Embedding = nn.Embedding
    LayerNorm = nn.LayerNorm
    GroupNorm = GroupNorm
