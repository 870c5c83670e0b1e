"""FSDP: each process keeps a share of every weight, of its gradient and average, and of the optimizer's state.

torch's fully_shard splits the parameters and joins them where a block needs them. Everything else here works on the
shares as on plain tensors; checkpoints and exported files hold whole ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..networks.spatial import ResBlock, SpatialTransformer


def shard(objective: nn.Module, device: torch.device, world: int) -> None:
    """Split a network over the processes, in place: block by block, and what lies outside of blocks as one."""
    mesh = init_device_mesh(device.type, (world,))
    for block in objective.modules():
        if isinstance(block, ResBlock | SpatialTransformer):
            fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def own(tensor: Tensor) -> Tensor:
    """This process's share of a split tensor, in the same memory; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(share: Tensor, like: Tensor) -> Tensor:
    """The tensor of which each process gives its share, split as `like` is. All processes must ask together."""
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
    """This process's share of a whole tensor, split as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    there = tensor.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None).to_local()
