"""Everything of a run, put together from its config: networks, masters, averages, optimizer, data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .config import OptimTable, TrainConfig
from .feed import Feed
from .masters import AverageWeights, MasterWeights
from .optimizer import MuonAdamW, is_matrix
from .stage import Stage, build_stage


@dataclass
class Trainer:
    """Everything of a run that a checkpoint holds, and what acts on it."""

    config: TrainConfig
    stage: Stage
    masters: MasterWeights
    average: AverageWeights
    optimizer: torch.optim.Optimizer
    groups: list[str]
    feed: Feed
    generator: torch.Generator
    step: int = 0
    elapsed: float = 0.0


def build(config: TrainConfig, stage: Stage | None = None) -> Trainer:
    """Networks at the working precision, masters, optimizer and data, all at step 0."""
    stage = build_stage(config) if stage is None else stage
    trained: dict[str, nn.Parameter] = {}
    group_of: dict[str, str] = {}
    for part, module in stage.modules.items():
        for key, parameter in module.named_parameters():
            group = stage.group_of(f"{part}.{key}")
            parameter.requires_grad_(group is not None)
            if group is not None:
                trained[f"{part}.{key}"], group_of[f"{part}.{key}"] = parameter, group
    masters = MasterWeights(trained, separate=config.precision != "fp32")
    if config.precision == "bf16":
        for module in stage.modules.values():
            module.to(torch.bfloat16)
    optimizer, groups = _optimizer(config.optim, masters, group_of)
    feed = Feed(stage.dataset, batch=config.data.batch, seed=config.seed)
    average = AverageWeights(masters, config.optim.ema)
    generator = torch.Generator().manual_seed(config.seed)
    return Trainer(config, stage, masters, average, optimizer, groups, feed, generator)


def _optimizer(
    optim: OptimTable, masters: MasterWeights, group_of: dict[str, str]
) -> tuple[torch.optim.Optimizer, list[str]]:
    """One group per rate, decay (biases and norms are not decayed) and method, and the groups' names."""
    members: dict[tuple[str, bool, bool], list[nn.Parameter]] = {}
    for name, tensor in zip(masters.names, masters.tensors, strict=True):
        if optim.groups and group_of[name] not in optim.groups:
            raise ValueError(
                f"{name} is in group {group_of[name]!r}; optim.groups has {', '.join(optim.groups)}"
            )
        muon = optim.optimizer == "muon" and is_matrix(tensor) and "embedding" not in name
        members.setdefault((group_of[name], tensor.ndim > 1, muon), []).append(tensor)
    table = [
        {"params": tensors, "weight_decay": optim.weight_decay if decayed else 0.0, "muon": muon}
        for (_, decayed, muon), tensors in members.items()
    ]
    optimizer = MuonAdamW(table, lr=optim.lr, betas=optim.betas, fused=True)
    return optimizer, [name for name, *_ in members]
