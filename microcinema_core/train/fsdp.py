"""FSDP: each process keeps a shard of each weight, gradient, EMA weight and optimizer state.

torch's fully_shard splits the parameters and gathers them where a block needs them. The rest of training works on
local shards as on plain tensors; checkpoints and exported files hold full tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..networks.spatial import ResBlock, SpatialTransformer


def shard(objective: nn.Module, device: torch.device, world: int) -> None:
    """Shard a network over the processes, in place.

    Each ResBlock and transformer is one FSDP unit, and so are the layers outside of them together.

    Args:
        objective: the network.
        device: this process's device; its type decides the mesh.
        world: number of processes.
    """
    mesh = init_device_mesh(device.type, (world,))
    for block in objective.modules():
        if isinstance(block, ResBlock | SpatialTransformer):
            fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a sharded tensor, sharing its memory; return a plain tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(share: Tensor, like: Tensor) -> Tensor:
    """Gather the full tensor of which each process holds a shard, sharded as `like` is.

    All processes have to call this together. A plain `like` returns `share` as it is.
    """
    if not isinstance(like, DTensor):
        return share
    placed = DTensor.from_local(
        share.detach().to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return placed.full_tensor()


def shard_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's shard of a full tensor, sharded as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    there = tensor.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None).to_local()
