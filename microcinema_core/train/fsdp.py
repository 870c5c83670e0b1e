"""FSDP: each process keeps a shard of each weight, gradient, EMA weight and optimizer state.

torch's fully_shard splits the parameters and gathers them where a block needs them. The rest of training works on
local shards as on plain tensors; checkpoints and exported files hold full tensors. Torch has `fully_shard` from 2.6 on;
it is imported only where a config turns FSDP on, and training without it runs on older versions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..networks.spatial import ResBlock, SpatialTransformer


def require_fsdp() -> None:
    """Check that this torch has `fully_shard`.

    Raises:
        ValueError: it is older than 2.6.
    """
    try:
        from torch.distributed.fsdp import fully_shard  # noqa: F401
        from torch.distributed.tensor import DTensor  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"fsdp is true, which needs torch 2.6 or newer, and torch is {torch.__version__}: install a newer torch, "
            "or leave the key out"
        ) from error


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, of which each process holds a shard."""
    return hasattr(tensor, "to_local")


def shard(objective: nn.Module, device: torch.device, world: int) -> None:
    """Shard a network over the processes, in place.

    Each ResBlock and transformer is one FSDP unit, and so are the layers outside of them together.

    Args:
        objective: the network.
        device: this process's device; its type decides the mesh.
        world: number of processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world,))
    for block in objective.modules():
        if isinstance(block, ResBlock | SpatialTransformer):
            fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a sharded tensor, sharing its memory; return a plain tensor as it is."""
    sharded: Any = tensor
    return sharded.to_local() if is_sharded(tensor) else tensor


def full_tensor(share: Tensor, like: Tensor) -> Tensor:
    """Gather the full tensor of which each process holds a shard, sharded as `like` is.

    All processes have to call this together. A plain `like` returns `share` as it is.
    """
    if not is_sharded(like):
        return share
    from torch.distributed.tensor import DTensor

    sharded: Any = like
    placed = DTensor.from_local(
        share.detach().to(like.device),
        sharded.device_mesh,
        sharded.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return placed.full_tensor()


def shard_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's shard of a full tensor, sharded as `like` is."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    there = tensor.to(like.device)
    return distribute_tensor(there, sharded.device_mesh, sharded.placements, src_data_rank=None).to_local()
