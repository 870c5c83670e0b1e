"""Checkpoints of a run: saved atomically, resumed exactly, and exported as a MicroCinema file.

A checkpoint is a folder with tensors.safetensors and state.json; nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import json_text
from ..messages import one_line, reason
from .config import TrainConfig
from .fsdp import full_tensor, local_shard, shard_of
from .stage import Parts
from .trainer import Trainer, frozen_tensors
from .writing import NotWritten, writing

logger = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{8})")


def save_checkpoint(trainer: Trainer) -> None:
    """Save all that the rest of the run depends on: weights, EMA, optimizer, random states, data position.

    The first process writes. With FSDP all processes have to call this together.
    """
    processes = trainer.processes
    if not (processes.main or processes.sharded):
        return
    tensors = {
        name: processes.gather_full(share, like) for name, (share, like) in _local_tensors(trainer).items()
    }
    if not processes.main:
        return
    tensors |= {"random.generator": trainer.generator.get_state(), "random.global": torch.get_rng_state()}
    scalars = {
        "elapsed": trainer.elapsed,
        "position": trainer.batches.position,
        "scaler": trainer.scaler.state_dict(),
        "config": dataclasses.asdict(trainer.config),
    }
    folder = trainer.config.run_folder / "checkpoints"
    write_state(folder, trainer.step, tensors, scalars, keep=trainer.config.log.keep)
    logger.info("checkpoint at step %d", trainer.step)


def _local_tensors(trainer: Trainer) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each tensor of a checkpoint as (this process's shard, a tensor with its sharding), by name."""
    master_weights = trainer.master_weights
    held: dict[str, tuple[Tensor, Tensor]] = {}
    for name, master, ema, like in zip(
        master_weights.names, master_weights.tensors, trainer.ema.tensors, master_weights.working, strict=True
    ):
        held[f"master.{name}"], held[f"ema.{name}"] = (master, like), (ema, like)
        for key, value in trainer.optimizer.state.get(master, {}).items():
            entry = torch.as_tensor(value)
            held[f"optim.{name}.{key}"] = (entry, like if entry.shape == master.shape else entry)
    for name, tensor in frozen_tensors(trainer.stage, master_weights):
        held[f"buffer.{name}"] = (trainer.frozen.get(name, local_shard(tensor)), tensor)
    return held


def refuse_to_overwrite(config: TrainConfig) -> None:
    """Refuse to start a new run in a folder that holds checkpoints of an earlier one.

    Raises:
        ValueError: the folder has checkpoints.
    """
    if found := saved_checkpoints(config.run_folder / "checkpoints"):
        raise ValueError(
            f"{one_line(config.run_folder)} holds {found[-1].name} of an earlier run: go on from it with --resume, "
            "choose another `name`, or move the folder away"
        )


def resume_from_checkpoint(trainer: Trainer) -> None:
    """Restore the newest checkpoint of the run.

    Raises:
        ValueError: there is none, it cannot be read, or it belongs to other networks or another data set.
    """
    found = saved_checkpoints(trainer.config.run_folder / "checkpoints")
    if not found:
        raise ValueError(
            f"nothing to resume in {one_line(trainer.config.run_folder)}; start without --resume"
        )
    tensors, scalars = read_state(found[-1])
    _refuse_incomplete(found[-1], tensors, scalars)
    _refuse_another(trainer, found[-1], tensors, scalars["position"])
    with torch.no_grad():
        _restore(trainer, tensors)
    trainer.master_weights.publish()
    _restore_optimizer(trainer, tensors)
    trainer.generator.set_state(tensors["random.generator"])
    torch.set_rng_state(tensors["random.global"])
    trainer.step, trainer.elapsed = scalars["step"], scalars["elapsed"]
    trainer.batches.position = scalars["position"]
    if scalars.get("scaler") and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(scalars["scaler"])
    logger.info("resumed at step %d, %.0f min done", trainer.step, trainer.elapsed / 60)


def _refuse_incomplete(path: Path, tensors: Mapping[str, Tensor], scalars: Any) -> None:
    """Refuse a checkpoint that lacks what every one has.

    Raises:
        ValueError: names what it lacks, or what is of another type.
    """
    lacking = [name for name in ("random.generator", "random.global") if name not in tensors]
    kinds = {"step": int, "elapsed": int | float, "position": int | list}
    for name, kind in kinds.items():
        if not (isinstance(scalars, dict) and isinstance(scalars.get(name), kind)):
            lacking.append(f"{name} in state.json")
    if lacking:
        raise ValueError(
            f"{one_line(path)} cannot be read (it lacks {', '.join(lacking)}): move it away, and --resume "
            "continues from the one before"
        )


def _restore(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    """Restore master weights, EMA and frozen tensors."""
    master_weights = trainer.master_weights
    for name, master, ema, like in zip(
        master_weights.names, master_weights.tensors, trainer.ema.tensors, master_weights.working, strict=True
    ):
        master.copy_(shard_of(tensors[f"master.{name}"], like))
        ema.copy_(shard_of(tensors[f"ema.{name}"], like))
    for name, tensor in frozen_tensors(trainer.stage, master_weights):
        key = f"buffer.{name}" if f"buffer.{name}" in tensors else f"master.{name}"  # trained until now
        value = shard_of(tensors[key], tensor)
        local_shard(tensor).copy_(value)
        if name in trainer.frozen:
            trainer.frozen[name].copy_(value)


def _refuse_another(
    trainer: Trainer, path: Path, tensors: Mapping[str, Tensor], position: int | list[int]
) -> None:
    """Refuse a checkpoint of other networks or buckets; a parameter that it trained may be frozen now.

    Raises:
        ValueError: names the first tensor that differs, or both positions.
    """
    theirs = {key.removeprefix("master."): t.shape for key, t in tensors.items() if key.startswith("master.")}
    ours = {
        n: t.shape for n, t in zip(trainer.master_weights.names, trainer.master_weights.working, strict=True)
    }
    frozen = {n: t.shape for n, t in frozen_tensors(trainer.stage, trainer.master_weights) if n in theirs}
    wanted = ours | frozen
    if differ := sorted(name for name in {*theirs, *wanted} if theirs.get(name) != wanted.get(name)):
        raise ValueError(
            f"{one_line(path)} is of another config: {len(differ)} trained tensors differ, the first is {differ[0]}; "
            "the config that it was made with is in its state.json"
        )
    here = trainer.batches.position
    if isinstance(position, list) != isinstance(here, list) or (
        isinstance(position, list) and isinstance(here, list) and len(position) != len(here)
    ):
        raise ValueError(
            f"{one_line(path)} is of another data set: its position is {position}, expected the form of {here}"
        )


def _restore_optimizer(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state of a new optimizer from the entries `optim.<parameter>.<key>`."""
    optimizer, master_weights = trainer.optimizer, trainer.master_weights
    places = {
        n: (m, w)
        for n, m, w in zip(master_weights.names, master_weights.tensors, master_weights.working, strict=True)
    }
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
    """Return the trained networks' state dicts with EMA weights, float32 on the CPU.

    With FSDP all processes have to call this together.
    """
    exact = trainer.frozen | dict(zip(trainer.master_weights.names, trainer.ema.tensors, strict=True))
    return {
        part: {
            key: full_tensor(exact.get(f"{part}.{key}", local_shard(t)), t).detach().float().cpu().clone()
            for key, t in module.state_dict().items()
        }
        for part, module in trainer.stage.modules.items()
    }


def export(trainer: Trainer) -> None:
    """Export the EMA weights as a MicroCinema file at `config.export_path`; changes no random state.

    The first process writes. With FSDP all processes have to call this together.

    Raises:
        NotWritten: the file cannot be written; the one before, if any, is still there.
    """
    processes = trainer.processes
    parts = ema_parts(trainer) if processes.main or processes.sharded else {}
    if not processes.main:
        return
    path = trainer.config.export_path
    advice = "the checkpoints are whole; free some room or mend the path, and --resume exports it"
    with writing(path, advice), torch.random.fork_rng(devices=[]):
        trainer.stage.export(path, parts)
    logger.info("exported %s", one_line(path))


def saved_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def write_state(
    folder: Path, step: int, tensors: dict[str, Tensor], scalars: dict[str, Any], *, keep: int
) -> Path:
    """Write the checkpoint `folder`/step-N, then delete all but the newest `keep`.

    The write is atomic: a kill at any moment leaves the older checkpoints complete. A checkpoint of this step that
    already exists holds the same state and is kept.

    Raises:
        NotWritten: the disk is full or not writable; older checkpoints are untouched.
    """
    target, temporary = folder / f"step-{step:08d}", folder / f".writing-{secrets.token_hex(8)}"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        _write(temporary, tensors, {"step": step, **scalars})
        os.replace(temporary, target)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise NotWritten(
            f"could not save {one_line(target)}: {reason(error)}; the older checkpoints are whole, --resume continues "
            "from the newest"
        ) from error
    for old in [*saved_checkpoints(folder)[:-keep], *unfinished_checkpoints(folder)]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def unfinished_checkpoints(folder: Path) -> list[Path]:
    """Return what killed processes left of checkpoints in a folder that the caller has locked."""
    return list(folder.glob(".writing-*"))


def _write(folder: Path, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Write both files and flush them to the disk."""
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, folder / "tensors.safetensors")
    (folder / "state.json").write_text(json.dumps(scalars, indent=1))
    for path in folder.iterdir():
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and scalars of one checkpoint.

    Raises:
        ValueError: a file is missing or damaged.
    """
    try:
        return load_file(path / "tensors.safetensors"), json_text.loads((path / "state.json").read_text())
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(
            f"{one_line(path)} cannot be read ({reason(error)}): move it away, and --resume continues from the one "
            "before"
        ) from error
