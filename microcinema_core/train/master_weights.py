"""Float32 master weights behind low-precision working weights, and their moving average (EMA)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .fsdp import is_sharded, local_shard


class MasterWeights:
    """The float32 copies of the trained parameters, which alone the optimizer sees.

    Gradients accumulate in float32. Construct this before the working weights are cast down. With FSDP the copies are
    this process's shards.

    Attributes:
        names: the parameters' names, `<part>.<key>`.
        separate: false where the working weights stay float32 and are the master weights themselves.
        working: the parameters that the forward pass uses.
        tensors: the master weights, in the same order.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], *, separate: bool) -> None:
        self.names = list(parameters)
        self.separate = separate
        self.working = list(parameters.values())
        self.tensors = [self._master(p) for p in self.working]

    def _master(self, parameter: nn.Parameter) -> nn.Parameter:
        if self.separate:
            return nn.Parameter(local_shard(parameter).detach().clone())
        return nn.Parameter(local_shard(parameter).detach()) if is_sharded(parameter) else parameter

    def collect_gradients(self) -> None:
        """Move the working weights' gradients to the master weights, adding up; call after each backward pass."""
        for master, working in zip(self.tensors, self.working, strict=True):
            if master is working or working.grad is None:
                continue
            gradient = local_shard(working.grad)
            if master.grad is None:
                master.grad = gradient.float()
            else:
                master.grad += gradient
            working.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the master weights into the working weights."""
        self.copy_to_working(self.tensors)

    @torch.no_grad()
    def copy_to_working(self, tensors: list[Tensor] | list[nn.Parameter]) -> None:
        """Copy tensors of the master weights' shapes into the working weights."""
        for working, tensor in zip(self.working, tensors, strict=True):
            local_shard(working).copy_(tensor)

    def clear_gradients(self) -> None:
        """Drop the gradients of the master weights."""
        for master in self.tensors:
            master.grad = None


class EMAWeights:
    """The EMA of the master weights, with decay min(decay, (1 + step) / (10 + step)).

    Keeping it on another `device` saves 4 bytes per parameter on the GPU and costs one transfer per step.
    """

    def __init__(self, master_weights: MasterWeights, decay: float, device: str | None = None) -> None:
        self.master_weights = master_weights
        self.decay = decay
        self.device = device
        self.tensors = [m.detach().to(device, copy=True) for m in master_weights.tensors]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the master weights after step number `step`, counted from 0."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            self.tensors, [m.detach().to(self.device) for m in self.master_weights.tensors], weight
        )

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Set the working weights to the EMA within this context, and restore them after it."""
        kept = (
            self.master_weights.tensors
            if self.master_weights.separate
            else [m.detach().to(self.device, copy=True) for m in self.master_weights.tensors]
        )
        try:
            self.master_weights.copy_to_working(self.tensors)
            yield
        finally:
            self.master_weights.copy_to_working(kept)
