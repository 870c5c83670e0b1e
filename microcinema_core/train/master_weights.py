"""float32 master weights behind low-precision working weights, and their exponential moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .fsdp import own


class MasterWeights:
    """float32 copies of the parameters that are trained; the optimizer sees only these. Gradients add up in float32.

    With `separate` false the working weights stay float32 and are the masters themselves. Make this before the working
    weights are cast down. Of weights that are split over processes (shares.py), masters are this one's shares.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], *, separate: bool) -> None:
        self.names = list(parameters)
        self.separate = separate
        self.working = list(parameters.values())
        self.tensors = [self._master(p) for p in self.working]

    def _master(self, parameter: nn.Parameter) -> nn.Parameter:
        if self.separate:
            return nn.Parameter(own(parameter).detach().clone())
        return nn.Parameter(own(parameter).detach()) if isinstance(parameter, DTensor) else parameter

    def collect_gradients(self) -> None:
        """Add the working weights' gradients into the masters' and clear them; call after each backward pass."""
        for master, working in zip(self.tensors, self.working, strict=True):
            if master is working or working.grad is None:
                continue
            gradient = own(working.grad)
            if master.grad is None:
                master.grad = gradient.float()
            else:
                master.grad += gradient
            working.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the working weights."""
        self.show(self.tensors)

    @torch.no_grad()
    def show(self, tensors: list[Tensor] | list[nn.Parameter]) -> None:
        """Copy any tensors of the masters' shapes into the working weights."""
        for working, tensor in zip(self.working, tensors, strict=True):
            own(working).copy_(tensor)

    def clear_gradients(self) -> None:
        for master in self.tensors:
            master.grad = None


class EMAWeights:
    """Exponential moving average of the masters: decay is min(decay, (1 + step) / (10 + step)).

    It may lie on another device than they do: four bytes a parameter less on the GPU, for a copy over the bus a step.
    """

    def __init__(self, masters: MasterWeights, decay: float, device: str | None = None) -> None:
        self.masters = masters
        self.decay = decay
        self.device = device
        self.tensors = [m.detach().to(device, copy=True) for m in masters.tensors]

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.tensors, [m.detach().to(self.device) for m in self.masters.tensors], weight)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within this context the working weights are the average; training's own come back after it."""
        kept = (
            self.masters.tensors
            if self.masters.separate
            else [m.detach().to(self.device, copy=True) for m in self.masters.tensors]
        )
        try:
            self.masters.show(self.tensors)
            yield
        finally:
            self.masters.show(kept)
