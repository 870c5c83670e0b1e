"""What of a run its checkpoints hold, how it goes on from one, and what it hands to others; state.py has the files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import state
from .config import TrainConfig
from .stage import Parts
from .trainer import Trainer, untrained

logger = logging.getLogger(__name__)


def save_checkpoint(trainer: Trainer) -> None:
    """Everything that the rest of the run depends on, by the first process."""
    if not trainer.processes.main:
        return
    names = dict(zip(trainer.masters.tensors, trainer.masters.names, strict=True))
    tensors: dict[str, Tensor] = {f"master.{name}": tensor for tensor, name in names.items()}
    tensors |= {
        f"ema.{name}": t for name, t in zip(trainer.masters.names, trainer.average.tensors, strict=True)
    }
    tensors |= _flatten_optimizer(trainer.optimizer, names)
    tensors |= {
        f"buffer.{name}": trainer.frozen.get(name, t) for name, t in untrained(trainer.stage, trainer.masters)
    }
    tensors |= {"random.generator": trainer.generator.get_state(), "random.global": torch.get_rng_state()}
    scalars = {
        "elapsed": trainer.elapsed,
        "position": trainer.feed.position,
        "scaler": trainer.scaler.state_dict(),
        "config": dataclasses.asdict(trainer.config),
    }
    folder = trainer.config.run_folder / "checkpoints"
    state.save(folder, trainer.step, tensors, scalars, keep=trainer.config.log.keep)
    logger.info("checkpoint at step %d", trainer.step)


def refuse_to_overwrite(config: TrainConfig) -> None:
    """ValueError if a new run would mix its checkpoints with those of an older one of its name."""
    if found := state.checkpoints(config.run_folder / "checkpoints"):
        raise ValueError(
            f"{config.run_folder} holds {found[-1].name} of an earlier run: go on from it with --resume, choose "
            "another `name`, or move the folder away"
        )


def load_checkpoint(trainer: Trainer) -> None:
    """Go on from the newest checkpoint of the run; ValueError if there is none or it is of another network."""
    found = state.checkpoints(trainer.config.run_folder / "checkpoints")
    if not found:
        raise ValueError(f"nothing to resume in {trainer.config.run_folder}; start without --resume")
    tensors, scalars = state.read(found[-1])
    names = dict(zip(trainer.masters.tensors, trainer.masters.names, strict=True))
    _refuse_another(trainer, found[-1], tensors, scalars["position"])
    with torch.no_grad():
        for master, average, name in zip(
            trainer.masters.tensors, trainer.average.tensors, trainer.masters.names, strict=True
        ):
            master.copy_(tensors[f"master.{name}"])
            average.copy_(tensors[f"ema.{name}"])
        for name, tensor in untrained(trainer.stage, trainer.masters):
            key = f"buffer.{name}" if f"buffer.{name}" in tensors else f"master.{name}"  # trained until now
            tensor.copy_(tensors[key])
            if name in trainer.frozen:
                trainer.frozen[name].copy_(tensors[key])
    trainer.masters.publish()
    _restore_optimizer(trainer.optimizer, names, tensors)
    trainer.generator.set_state(tensors["random.generator"])
    torch.set_rng_state(tensors["random.global"])
    trainer.step, trainer.elapsed = scalars["step"], scalars["elapsed"]
    trainer.feed.position = scalars["position"]
    if scalars.get("scaler") and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(scalars["scaler"])
    logger.info("resumed at step %d, %.0f min done", trainer.step, trainer.elapsed / 60)


def _refuse_another(
    trainer: Trainer, path: Path, tensors: Mapping[str, Tensor], position: int | list[int]
) -> None:
    """ValueError where a checkpoint is of other networks or buckets. What it trained may be frozen by now."""
    theirs = {key.removeprefix("master."): t.shape for key, t in tensors.items() if key.startswith("master.")}
    ours = {n: t.shape for n, t in zip(trainer.masters.names, trainer.masters.tensors, strict=True)}
    frozen = {n: t.shape for n, t in untrained(trainer.stage, trainer.masters) if n in theirs}
    wanted = ours | frozen
    if differ := sorted(name for name in {*theirs, *wanted} if theirs.get(name) != wanted.get(name)):
        raise ValueError(
            f"{path} is of another config: {len(differ)} trained tensors differ, the first is {differ[0]}; "
            "the config that it was made with stands in its state.json"
        )
    here = trainer.feed.position
    if isinstance(position, list) != isinstance(here, list) or (
        isinstance(position, list) and isinstance(here, list) and len(position) != len(here)
    ):
        raise ValueError(
            f"{path} is of another data set: its position is {position}, expected the form of {here}"
        )


def _flatten_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[Any, str]) -> dict[str, Tensor]:
    """The optimizer's per-parameter tensors as `optim.<parameter>.<key>`."""
    return {
        f"optim.{names[parameter]}.{key}": torch.as_tensor(value)
        for parameter, entry in optimizer.state.items()
        for key, value in entry.items()
    }


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Any, str], tensors: dict[str, Tensor]
) -> None:
    """The inverse of `_flatten_optimizer`, into a new optimizer over the same parameters."""
    parameters = {name: parameter for parameter, name in names.items()}
    for key, value in tensors.items():
        if key.startswith("optim."):
            name, _, entry = key.removeprefix("optim.").rpartition(".")
            if name not in parameters:  # frozen since
                continue
            was_number = entry == "step" and not isinstance(optimizer, torch.optim.AdamW)
            there = parameters[name].device
            optimizer.state[parameters[name]][entry] = int(value) if was_number else value.to(there)


def averaged_parts(trainer: Trainer) -> Parts:
    """float32 state dicts of the trained networks with averaged weights."""
    exact = trainer.frozen | dict(zip(trainer.masters.names, trainer.average.tensors, strict=True))
    return {
        part: {
            key: exact.get(f"{part}.{key}", t).detach().float().cpu().clone()
            for key, t in module.state_dict().items()
        }
        for part, module in trainer.stage.modules.items()
    }


def export(trainer: Trainer) -> None:
    """The averaged weights as the file that others load, by the first process."""
    if not trainer.processes.main:
        return
    with torch.random.fork_rng(devices=[]):
        trainer.stage.export(trainer.config.export_path, averaged_parts(trainer))
    logger.info("exported %s", trainer.config.export_path)
