"""Gradient checkpointing: memory for work."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from ..networks.spatial import ResBlock, SpatialTransformer


def recompute_blocks(*networks: nn.Module) -> None:
    """Each ResBlock and transformer, with its layers over time, keeps its input alone for the backward pass.

    In place; parameters keep their names.
    """
    for network in networks:
        for block in network.modules():
            if isinstance(block, ResBlock | SpatialTransformer):
                again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
                block.forward = again  # type: ignore[method-assign]
