"""Inflation of a Stable Diffusion 1.x or 2.x U-Net to a MicroCinema U-Net and AppearNet (section 3.1).

Spatial layers keep the checkpoint's keys and tensors. Temporal layers and the injection are new. Their last projections
are initialised as zero, so before training the result is the image model applied to each frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import AppearNetConfig, InjectionKind, UNetConfig
from ..networks.appearnet import AppearNet
from ..networks.layers import zero_initialised_keys
from ..networks.unet import UNet3D, is_temporal
from .stable_diffusion import config_of


@dataclass(frozen=True)
class Inflated:
    """The two networks before training: configurations and state dicts."""

    unet_config: UNetConfig
    appearnet_config: AppearNetConfig
    unet: dict[str, Tensor]
    appearnet: dict[str, Tensor]


def inflate(
    spatial: Mapping[str, Tensor],
    *,
    config: UNetConfig | None = None,
    injection: InjectionKind = "spade",
    seed: int = 0,
    appearnet: dict[str, Any] | None = None,
    **temporal: Any,
) -> Inflated:
    """Inflate a 2D U-Net.

    Args:
        spatial: its tensors, under LDM keys without prefix.
        config: its configuration; None reads it from the tensors' shapes.
        injection: a row of the paper's Table 2.
        seed: of the new tensors that are not initialised as zeros or ones.
        appearnet: further fields of `AppearNetConfig`.
        temporal: fields of `UNetConfig` to set, such as `temporal_conv`.

    Raises:
        ValueError: the tensors are not those of a Stable Diffusion 1.x or 2.x U-Net.
    """
    config = (config or config_of(spatial)).inflated(**temporal)
    net_config = AppearNetConfig(config, injection=injection, **(appearnet or {}))
    with torch.device("meta"):
        unet, net = UNet3D(config), AppearNet(net_config)
    absent = [key for key in unet.state_dict() if not is_temporal(key) and key not in spatial]
    if absent:
        raise ValueError(
            f"the checkpoint lacks {len(absent)} of the U-Net's tensors, the first is {absent[0]}; "
            "expected a whole Stable Diffusion 1.x or 2.x checkpoint."
        )
    generator = torch.Generator().manual_seed(seed)
    dtype = next(iter(spatial.values())).dtype
    unet_tensors = filled(unet, spatial, generator, dtype)
    inherited = {f"encoder.{key}": tensor for key, tensor in unet_tensors.items()}
    net_tensors = filled(net, inherited, generator, dtype)
    copies = {key: tensor.clone() if key in inherited else tensor for key, tensor in net_tensors.items()}
    return Inflated(config, net_config, unet_tensors, copies)


def filled(
    network: nn.Module, given: Mapping[str, Tensor], generator: torch.Generator, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return a state dict for a network, which may be on "meta": given tensors, and initial values for the others."""
    zero = zero_initialised_keys(network) | {key for key, _ in network.named_buffers()}
    return {
        key: given[key]
        if key in given
        else _initial(key in zero or key.endswith("bias"), meta.shape, generator, dtype)
        for key, meta in network.state_dict().items()
    }


def _initial(zero: bool, shape: torch.Size, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Return zeros, ones (the weight of a norm), or a draw from torch's usual uniform initialisation."""
    if zero:
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    bound = shape[1:].numel() ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator).to(dtype)
