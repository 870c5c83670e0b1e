"""The state of a run, built from its config: networks, master weights, EMA, optimizer, data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batches import Batches, BucketBatches, batches_of
from .config import OptimTable, TrainConfig, nearest
from .fsdp import local_shard
from .master_weights import EMAWeights, MasterWeights
from .optimizer import MuonAdamW, adamw_8bit, is_matrix
from .processes import Processes
from .stage import Stage


@dataclass
class Trainer:
    """The whole state of a run, as `step.train_step` advances it and checkpoints save it.

    Attributes:
        config: the run.
        stage: networks, data and loss.
        processes: the processes of the run.
        objective: the stage's loss as a module, wrapped by DDP or FSDP where there are several processes.
        master_weights: the trained parameters in float32.
        frozen: float32 values of the frozen tensors on the CPU, where the working weights are bfloat16.
        ema: the EMA of the master weights.
        optimizer: optimizer of the master weights.
        groups: the learning-rate group of each of the optimizer's parameter groups.
        scaler: float16 loss scaling; disabled otherwise.
        batches: the data, with its position.
        generator: generator of all draws, in the same state in every process.
        step: steps done so far.
        elapsed: seconds of training so far.
    """

    config: TrainConfig
    stage: Stage
    processes: Processes
    objective: nn.Module
    master_weights: MasterWeights
    frozen: dict[str, Tensor]
    ema: EMAWeights
    optimizer: torch.optim.Optimizer
    groups: list[str]
    scaler: torch.amp.GradScaler
    batches: Batches | BucketBatches
    generator: torch.Generator
    step: int = 0
    elapsed: float = 0.0

    def rates(self) -> dict[str, float]:
        """Return the current learning rates by group."""
        return {n: g["lr"] for n, g in zip(self.groups, self.optimizer.param_groups, strict=True)}

    @property
    def step_items(self) -> int:
        """Number of items that one step takes, in all processes together."""
        return self.config.data.batch * self.config.data.accumulate * self.processes.world


def build(config: TrainConfig, stage: Stage, processes: Processes | None = None) -> Trainer:
    """Build the state at step 0: networks at the working precision, master weights, EMA, optimizer, data.

    Raises:
        ValueError: the config's groups or optimizer do not fit the stage or the installation.
    """
    processes = Processes(config) if processes is None else processes
    stage.to(processes.device)
    for module in stage.modules.values():
        module.to(processes.device)
    objective = processes.objective(stage)
    trained, group_of = select_trainable(stage, config.optim)
    master_weights = MasterWeights(trained, separate=config.precision == "bf16")
    frozen: dict[str, Tensor] = {}
    if master_weights.separate:
        frozen = {
            n: local_shard(t).detach().cpu()
            for n, t in frozen_tensors(stage, master_weights)
            if t.is_floating_point()
        }
        objective.to(torch.bfloat16)
    optimizer, groups = _optimizer(config.optim, master_weights, group_of)
    ema = EMAWeights(master_weights, config.optim.ema, config.optim.ema_device or None)
    scaler = torch.amp.GradScaler(processes.device.type, enabled=config.precision == "fp16-mixed")
    batches = batches_of(
        stage.dataset, batch=config.data.batch, seed=config.seed, rank=processes.rank, world=processes.world
    )
    generator = torch.Generator().manual_seed(config.seed)
    wrapped = processes.wrap(objective)
    return Trainer(
        config, stage, processes, wrapped, master_weights, frozen, ema, optimizer, groups, scaler, batches, generator
    )  # fmt: skip


def select_trainable(stage: Stage, optim: OptimTable) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """Choose the trained parameters by learning-rate group, and freeze all others, in place.

    Returns:
        The trained parameters and their groups, both by parameter name. Groups with factor 0 are frozen.

    Raises:
        ValueError: `optim.groups` does not match the stage's groups, or nothing is trained.
    """
    parameters = {
        f"{part}.{key}": parameter
        for part, module in stage.modules.items()
        for key, parameter in module.named_parameters()
    }
    groups = {name: group for name in parameters if (group := stage.group_of(name)) is not None}
    if optim.groups:
        _refuse_other_groups(groups, optim.groups)
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in parameters.items():
        moves = name in groups and optim.groups.get(groups[name], 1.0) != 0
        parameter.requires_grad_(moves)
        if moves:
            trained[name] = parameter
    if not trained:
        raise ValueError(
            f"optim.groups is {optim.groups}: nothing is trained; give one of its groups a rate above 0"
        )
    return trained, {name: groups[name] for name in trained}


def _refuse_other_groups(groups: Mapping[str, str], rates: Mapping[str, float]) -> None:
    """Refuse `optim.groups` that does not name exactly the stage's groups.

    Raises:
        ValueError: a group without parameters, or a parameter whose group is not named.
    """
    there = sorted(set(groups.values()))
    for group in rates:
        if group not in there:
            hint = (
                "; model.lora_rank makes it"
                if group == "lora"
                else nearest(group, {name: name for name in there})
            )
            raise ValueError(f"optim.groups names {group!r}, which no parameter is in{hint}")
    for name, group in groups.items():
        if group not in rates:
            raise ValueError(f"{name} is in group {group!r}; optim.groups has {', '.join(rates)}")


def frozen_tensors(stage: Stage, master_weights: MasterWeights) -> Iterator[tuple[str, Tensor]]:
    """Yield the frozen parameters and buffers of the trained networks by name; FSDP shards as DTensors."""
    known = set(master_weights.names)
    for part, module in stage.modules.items():
        for key, tensor in module.state_dict(keep_vars=True).items():
            if f"{part}.{key}" not in known:
                yield f"{part}.{key}", tensor


def _optimizer(
    optim: OptimTable, master_weights: MasterWeights, group_of: dict[str, str]
) -> tuple[torch.optim.Optimizer, list[str]]:
    """Build the optimizer over the master weights.

    There is one parameter group for each combination of learning-rate group, weight decay (none for biases and norms)
    and method.

    Returns:
        The optimizer, and the learning-rate group of each of its parameter groups.
    """
    members: dict[tuple[str, bool, bool], list[nn.Parameter]] = {}
    for name, tensor in zip(master_weights.names, master_weights.tensors, strict=True):
        muon = optim.optimizer == "muon" and is_matrix(tensor) and "embedding" not in name
        members.setdefault((group_of[name], tensor.ndim > 1, muon), []).append(tensor)
    table = [
        {"params": tensors, "weight_decay": optim.weight_decay if decayed else 0.0, "muon": muon}
        for (_, decayed, muon), tensors in members.items()
    ]
    if optim.optimizer == "adamw8bit":
        optimizer: torch.optim.Optimizer = adamw_8bit(table, lr=optim.lr, betas=optim.betas)
    else:
        optimizer = MuonAdamW(table, lr=optim.lr, betas=optim.betas, fused=True)
    return optimizer, [name for name, *_ in members]
