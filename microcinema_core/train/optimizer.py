"""Muon beside AdamW, as one optimizer.

Muon (Jordan et al., 2024) replaces the momentum of a matrix by the nearest orthogonal one, so that no direction of it
is learnt faster than another. Convolution kernels are matrices from (input, taps) to output. Everything that is no
matrix, and the layers that a stage names, are AdamW's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the quintic that drives singular values towards 1 in five steps (Jordan et al.)."""
ROUNDS = 5
RMS = 0.2
"""Of AdamW's usual update; Muon's is scaled to it, so that both take one learning rate (Liu et al. 2025)."""
SMALLEST = 16


def is_matrix(tensor: Tensor) -> bool:
    """Whether Muon may have it: a weight of two dimensions or more, none of its two sides tiny."""
    return tensor.ndim > 1 and min(tensor.shape[0], tensor[0].numel()) >= SMALLEST


def orthogonal(matrices: Tensor) -> Tensor:
    """A batch `k m n` -> about its nearest orthogonal matrices, bfloat16 (Newton-Schulz)."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose groups with `muon=True` take Muon's step; their state is one `momentum` each."""

    def __init__(self, params: Iterable[dict[str, Any]], **options: Any) -> None:
        super().__init__([{"muon": False, **group} for group in params], **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """AdamW leaves parameters without a gradient alone, so Muon spends its own first."""
        for group in self.param_groups:
            if group["muon"]:
                self._muon(group)
        super().step(closure)

    def _muon(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.flatten(1).shape].append(parameter)
        for (rows, columns), parameters in alike.items():
            update = orthogonal(torch.stack([self._momentum(p) for p in parameters]))
            rate = group["lr"] * RMS * max(rows, columns) ** 0.5
            for parameter, change in zip(parameters, update, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(change.reshape(parameter.shape), alpha=rate)
                parameter.grad = None

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov's, as a matrix."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM).flatten(1)


def adamw_8bit(table: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """AdamW with its two states in 8 bits (bitsandbytes); ValueError where that is not installed."""
    try:
        import bitsandbytes  # type: ignore[import-not-found]
    except ImportError as error:
        raise ValueError(
            'optim.optimizer is "adamw8bit", which needs bitsandbytes: pip install bitsandbytes, or choose "adamw"'
        ) from error
    groups = [{key: value for key, value in group.items() if key != "muon"} for group in table]
    return bitsandbytes.optim.AdamW8bit(groups, **options)
