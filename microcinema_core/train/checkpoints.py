"""What of a run its checkpoints hold, how it goes on from one, and what it hands to others; state.py has the files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from . import state
from .config import TrainConfig
from .fsdp import own, shard_of, whole
from .stage import Parts
from .trainer import Trainer, untrained

logger = logging.getLogger(__name__)


def save_checkpoint(trainer: Trainer) -> None:
    """Everything that the rest of the run depends on, by the first process; where weights are split, all take part."""
    processes = trainer.processes
    if not (processes.main or processes.sharded):
        return
    tensors = {name: processes.kept(share, like) for name, (share, like) in _held(trainer).items()}
    if not processes.main:
        return
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


def _held(trainer: Trainer) -> dict[str, tuple[Tensor, Tensor]]:
    """What this process has of each tensor of a checkpoint, and a tensor that is split as it is."""
    masters = trainer.masters
    held: dict[str, tuple[Tensor, Tensor]] = {}
    for name, master, average, like in zip(
        masters.names, masters.tensors, trainer.average.tensors, masters.working, strict=True
    ):
        held[f"master.{name}"], held[f"ema.{name}"] = (master, like), (average, like)
        for key, value in trainer.optimizer.state.get(master, {}).items():
            entry = torch.as_tensor(value)
            held[f"optim.{name}.{key}"] = (entry, like if entry.shape == master.shape else entry)
    for name, tensor in untrained(trainer.stage, masters):
        held[f"buffer.{name}"] = (trainer.frozen.get(name, own(tensor)), tensor)
    return held


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
    _refuse_another(trainer, found[-1], tensors, scalars["position"])
    with torch.no_grad():
        _restore(trainer, tensors)
    trainer.masters.publish()
    _restore_optimizer(trainer, tensors)
    trainer.generator.set_state(tensors["random.generator"])
    torch.set_rng_state(tensors["random.global"])
    trainer.step, trainer.elapsed = scalars["step"], scalars["elapsed"]
    trainer.feed.position = scalars["position"]
    if scalars.get("scaler") and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(scalars["scaler"])
    logger.info("resumed at step %d, %.0f min done", trainer.step, trainer.elapsed / 60)


def _restore(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    """Masters, average, and what is not trained."""
    masters = trainer.masters
    for name, master, average, like in zip(
        masters.names, masters.tensors, trainer.average.tensors, masters.working, strict=True
    ):
        master.copy_(shard_of(tensors[f"master.{name}"], like))
        average.copy_(shard_of(tensors[f"ema.{name}"], like))
    for name, tensor in untrained(trainer.stage, masters):
        key = f"buffer.{name}" if f"buffer.{name}" in tensors else f"master.{name}"  # trained until now
        value = shard_of(tensors[key], tensor)
        own(tensor).copy_(value)
        if name in trainer.frozen:
            trainer.frozen[name].copy_(value)


def _refuse_another(
    trainer: Trainer, path: Path, tensors: Mapping[str, Tensor], position: int | list[int]
) -> None:
    """ValueError where a checkpoint is of other networks or buckets. What it trained may be frozen by now."""
    theirs = {key.removeprefix("master."): t.shape for key, t in tensors.items() if key.startswith("master.")}
    ours = {n: t.shape for n, t in zip(trainer.masters.names, trainer.masters.working, strict=True)}
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


def _restore_optimizer(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    """The optimizer's state from `optim.<parameter>.<key>`, into a new one over the same parameters."""
    optimizer, masters = trainer.optimizer, trainer.masters
    places = {n: (m, w) for n, m, w in zip(masters.names, masters.tensors, masters.working, strict=True)}
    for key, value in tensors.items():
        if key.startswith("optim."):
            name, _, entry = key.removeprefix("optim.").rpartition(".")
            if name not in places:  # frozen since
                continue
            master, like = places[name]
            was_number = entry == "step" and not isinstance(optimizer, torch.optim.AdamW)
            ours = shard_of(value, like) if value.shape == like.shape else value
            optimizer.state[master][entry] = int(value) if was_number else ours.to(master.device)


def ema_parts(trainer: Trainer) -> Parts:
    """float32 state dicts of the trained networks with averaged weights; where weights are split, all must ask."""
    exact = trainer.frozen | dict(zip(trainer.masters.names, trainer.average.tensors, strict=True))
    return {
        part: {
            key: whole(exact.get(f"{part}.{key}", own(t)), t).detach().float().cpu().clone()
            for key, t in module.state_dict().items()
        }
        for part, module in trainer.stage.modules.items()
    }


def export(trainer: Trainer) -> None:
    """The averaged weights as the file that others load, by the first process; where they are split, all take part."""
    processes = trainer.processes
    parts = ema_parts(trainer) if processes.main or processes.sharded else {}
    if not processes.main:
        return
    with torch.random.fork_rng(devices=[]):
        trainer.stage.export(trainer.config.export_path, parts)
    logger.info("exported %s", trainer.config.export_path)
