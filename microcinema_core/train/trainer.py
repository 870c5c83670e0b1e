"""Everything of a run, put together from its config: networks, masters, averages, optimizer, data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batches import Batches, BucketBatches, batches_of
from .config import OptimTable, TrainConfig
from .fsdp import own
from .master_weights import EMAWeights, MasterWeights
from .optimizer import MuonAdamW, adamw_8bit, is_matrix
from .processes import Processes
from .stage import Stage
from .stages import build_stage
from .tables import nearest


@dataclass
class Trainer:
    """Everything of a run that a checkpoint holds, and what acts on it.

    `frozen`: float32 values of what is not trained, where the working weights are less exact.
    """

    config: TrainConfig
    stage: Stage
    processes: Processes
    objective: nn.Module
    masters: MasterWeights
    frozen: dict[str, Tensor]
    average: EMAWeights
    optimizer: torch.optim.Optimizer
    groups: list[str]
    scaler: torch.amp.GradScaler
    feed: Batches | BucketBatches
    generator: torch.Generator
    step: int = 0
    elapsed: float = 0.0

    def rates(self) -> dict[str, float]:
        """Learning rates by group."""
        return {n: g["lr"] for n, g in zip(self.groups, self.optimizer.param_groups, strict=True)}

    @property
    def step_items(self) -> int:
        """Items of data that one step takes, over all processes."""
        return self.config.data.batch * self.config.data.accumulate * self.processes.world


def build(config: TrainConfig, stage: Stage | None = None, processes: Processes | None = None) -> Trainer:
    """Networks at the working precision, masters, optimizer and data, all at step 0."""
    processes = Processes(config) if processes is None else processes
    stage = build_stage(config) if stage is None else stage
    stage.to(processes.device)
    for module in stage.modules.values():
        module.to(processes.device)
    objective = processes.objective(stage)
    trained, group_of = choose(stage, config.optim)
    masters = MasterWeights(trained, separate=config.precision == "bf16")
    frozen: dict[str, Tensor] = {}
    if masters.separate:
        frozen = {n: own(t).detach().cpu() for n, t in untrained(stage, masters) if t.is_floating_point()}
        objective.to(torch.bfloat16)
    optimizer, groups = _optimizer(config.optim, masters, group_of)
    average = EMAWeights(masters, config.optim.ema, config.optim.ema_on or None)
    scaler = torch.amp.GradScaler(processes.device.type, enabled=config.precision == "fp16-mixed")
    feed = batches_of(
        stage.dataset, batch=config.data.batch, seed=config.seed, rank=processes.rank, world=processes.world
    )
    generator = torch.Generator().manual_seed(config.seed)
    wrapped = processes.wrap(objective)
    return Trainer(
        config, stage, processes, wrapped, masters, frozen, average, optimizer, groups, scaler, feed, generator
    )  # fmt: skip


def choose(stage: Stage, optim: OptimTable) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """What is trained and the group of each, by name; everything else is frozen. A group of rate 0 is frozen too."""
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
    """ValueError where the config's groups are not those that parameters are in."""
    there = sorted(set(groups.values()))
    for group in rates:
        if group not in there:
            hint = "; model.lora_rank makes it" if group == "lora" else nearest(group, there)
            raise ValueError(f"optim.groups names {group!r}, which no parameter is in{hint}")
    for name, group in groups.items():
        if group not in rates:
            raise ValueError(f"{name} is in group {group!r}; optim.groups has {', '.join(rates)}")


def untrained(stage: Stage, masters: MasterWeights) -> Iterator[tuple[str, Tensor]]:
    """Frozen parameters and buffers of the trained networks, by name; split ones as such (shares.py)."""
    known = set(masters.names)
    for part, module in stage.modules.items():
        for key, tensor in module.state_dict(keep_vars=True).items():
            if f"{part}.{key}" not in known:
                yield f"{part}.{key}", tensor


def _optimizer(
    optim: OptimTable, masters: MasterWeights, group_of: dict[str, str]
) -> tuple[torch.optim.Optimizer, list[str]]:
    """One group per rate, decay (biases and norms are not decayed) and method, and the groups' names."""
    members: dict[tuple[str, bool, bool], list[nn.Parameter]] = {}
    for name, tensor in zip(masters.names, masters.tensors, strict=True):
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
