"""Muon and AdamW as one optimizer.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, so that all of its directions
are learnt at the same speed. Convolution kernels are matrices from (input channels, taps) to output channels. AdamW
updates everything else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
"""Muon's momentum (Nesterov)."""
COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Coefficients of the quintic polynomial that drives singular values towards 1 in five rounds (Jordan et al.)."""
ROUNDS = 5
RMS = 0.2
"""Typical RMS of AdamW's update. Muon's is scaled to it, so that both share a learning rate (Liu et al. 2025)."""
SMALLEST = 16
"""Smallest side of a matrix that Muon updates."""


def is_matrix(tensor: Tensor) -> bool:
    """Return whether Muon updates a weight: as a matrix `out (in taps)`, neither side may be tiny."""
    return tensor.ndim > 1 and min(tensor.shape[0], tensor[0].numel()) >= SMALLEST


def orthogonal(matrices: Tensor) -> Tensor:
    """Return approximately the nearest orthogonal matrices of a batch `k m n`, bfloat16 (Newton-Schulz)."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose groups with `muon=True` are updated by Muon; their only state is `momentum`."""

    def __init__(self, params: Iterable[dict[str, Any]], **options: Any) -> None:
        super().__init__([{"muon": False, **group} for group in params], **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters.

        Muon runs first and clears its gradients, because AdamW skips parameters that have none.
        """
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
        """Update the momentum and return Nesterov's look-ahead as a matrix `out (in taps)`."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM).flatten(1)


def adamw_8bit(table: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """Build AdamW with 8-bit moments (bitsandbytes).

    Raises:
        ValueError: bitsandbytes is not installed.
    """
    try:
        import bitsandbytes  # type: ignore[import-not-found]
    except ImportError as error:
        raise ValueError(
            'optim.optimizer is "adamw8bit", which needs bitsandbytes: pip install bitsandbytes, or choose "adamw"'
        ) from error
    groups = [{key: value for key, value in group.items() if key != "muon"} for group in table]
    return bitsandbytes.optim.AdamW8bit(groups, **options)
