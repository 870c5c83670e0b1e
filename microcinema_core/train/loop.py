"""The training loop of every stage, from config to exported weights; read it from top to bottom."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext

import torch
from torch import Tensor

from ..data.folder_lock import locked_folder, remove_leftovers
from ..data.shards import write_json
from .checkpoints import (
    export,
    refuse_to_overwrite,
    resume_from_checkpoint,
    save_checkpoint,
    unfinished_checkpoints,
)
from .config import TrainConfig
from .processes import Processes, launched_rank
from .report import Report
from .sheets import save_animation, save_picture
from .stage import Stage
from .stages import STAGES, Stages, build_stage
from .step import DataLost, progress, train_step
from .trainer import Trainer, build
from .writing import NotWritten, refuse_unwritable, writing

logger = logging.getLogger(__name__)

KEPT = "the checkpoints are whole; free some room, then continue with --resume"
"""What to do when something besides the weights cannot be written."""


def run(
    config: TrainConfig, *, resume: bool = False, stage: Stage | None = None, stages: Stages = STAGES
) -> Trainer:
    """Train one stage from its config to its exported file.

    Args:
        config: the run.
        resume: continue from the newest checkpoint instead of starting a new run.
        stage: the stage, where it is built already.
        stages: the known stages by name, where it is not.

    Returns:
        The trainer, finished or interrupted.

    Raises:
        ValueError: something in the config, its files or the run's folder is wrong, or another process trains into
            that folder.
        NotWritten: a file could not be written; all steps are saved if the checkpoint could be.
        DataLost: the data set became unreadable; the steps before are saved.
        Diverged: a loss or gradient is not finite.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    refuse_unwritable(config.export_path, "export_to" if config.export_to else "name")
    with _lock(config):
        return _run(config, resume, stage, stages)


def _lock(config: TrainConfig) -> AbstractContextManager[None]:
    """Lock the run's folder, in the first process alone: the others of a run write nothing."""
    if launched_rank():
        return nullcontext()
    return locked_folder(config.run_folder, "wait until it has ended, or choose another `name`")


def _run(config: TrainConfig, resume: bool, stage: Stage | None, stages: Stages) -> Trainer:
    """Train one stage, with the run's folder locked; arguments and errors as for `run`."""
    if not resume:
        refuse_to_overwrite(config)
    processes = Processes(config)
    stage = build_stage(config, stages) if stage is None else stage
    if not resume:
        stage.prepare()
    trainer = build(config, stage, processes)
    if processes.main:
        _remove_leftovers(config)
    if resume:
        resume_from_checkpoint(trainer)
    elif processes.main:
        _announce(trainer)
    with closing(Report(config, trainer.step, shown=processes.main)) as report:
        _train(trainer, report)
    processes.wait()
    return trainer


def _remove_leftovers(config: TrainConfig) -> None:
    """Remove what earlier, killed processes of this run left unfinished."""
    folder = config.run_folder
    remove_leftovers(folder, folder / "checkpoints", folder / "sheets")
    for path in unfinished_checkpoints(folder / "checkpoints"):
        shutil.rmtree(path, ignore_errors=True)


def _train(trainer: Trainer, report: Report) -> None:
    """Run steps until the budget is used or a signal arrives, then save a checkpoint and export."""
    config, processes = trainer.config, trainer.processes
    last = dict.fromkeys(("checkpoint", "sheet", "export"), trainer.elapsed)
    stop = False
    with stop_on_signals() as caught:
        while progress(trainer) < 1.0 and not stop:
            started = time.monotonic()
            report.add(_step_or_save(trainer))
            elapsed = trainer.elapsed + time.monotonic() - started
            trainer.elapsed, stop = processes.agree_on_stop(elapsed, bool(caught))

            report.tick(trainer.step, trainer.elapsed, progress(trainer))
            if trainer.step % config.log.every == 0:
                _write_or_save(trainer, lambda: _write_row(trainer, report))
            if _due(trainer, last, "checkpoint", config.log.checkpoint_minutes, config.log.checkpoint_steps):
                save_checkpoint(trainer)
            if _due(trainer, last, "sheet", config.log.sheet_minutes):
                _write_or_save(trainer, lambda: save_sample_sheet(trainer, report))
            if _due(trainer, last, "export", config.log.export_minutes):
                _write_or_save(trainer, lambda: export(trainer))

        # Inside the context, as a launcher may send a second signal, and before all that could fail.
        save_checkpoint(trainer)
    if not stop:
        save_sample_sheet(trainer, report)
    export(trainer)


def _step_or_save(trainer: Trainer) -> dict[str, Tensor]:
    """Run one step; if its data cannot be read, save the steps before it and raise `DataLost`.

    With FSDP nothing is saved, because one process alone cannot gather the shards.
    """
    try:
        return train_step(trainer)
    except DataLost:
        if not trainer.processes.sharded:
            save_checkpoint(trainer)
        raise


def _write_or_save(trainer: Trainer, write: Callable[[], None]) -> None:
    """Write something besides the weights; if that fails, save the steps so far and raise `NotWritten`.

    With FSDP nothing is saved, because one process alone cannot gather the shards.
    """
    try:
        write()
    except NotWritten:
        if not trainer.processes.sharded:
            save_checkpoint(trainer)
        raise


def _write_row(trainer: Trainer, report: Report) -> None:
    with writing(trainer.config.run_folder / "stats.jsonl", KEPT):
        report.write(trainer.step, trainer.elapsed, trainer.rates())


def _announce(trainer: Trainer) -> None:
    """Write config.json, and log the config, the learning-rate groups and the data set."""
    config = trainer.config
    with writing(config.run_folder / "config.json", "free some room, then start again"):
        write_json(config.run_folder / "config.json", dataclasses.asdict(config))
    logger.info("%s", json.dumps(dataclasses.asdict(config)))
    for name in dict.fromkeys(trainer.groups):
        members = [
            g for g, n in zip(trainer.optimizer.param_groups, trainer.groups, strict=True) if n == name
        ]
        count = sum(p.numel() for g in members for p in g["params"])
        logger.info(
            "group %s: %.2f M parameters, lr x %g", name, count / 1e6, config.optim.groups.get(name, 1.0)
        )
    logger.info("%d items of data, %d per step", len(trainer.stage.dataset), trainer.step_items)


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that the loop can save and exit between steps."""
    caught: list[int] = []
    handlers = {
        s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _due(trainer: Trainer, last: dict[str, float], what: str, minutes: float, steps: int = 0) -> bool:
    if (steps and trainer.step % steps == 0) or (minutes and trainer.elapsed - last[what] >= 60 * minutes):
        last[what] = trainer.elapsed
        return True
    return False


@torch.no_grad()
def save_sample_sheet(trainer: Trainer, report: Report) -> None:
    """Save a sample sheet of the EMA weights in the run's folder; changes no random state.

    The first process writes. With FSDP all processes have to call this together.
    """
    processes = trainer.processes
    if not (processes.main or processes.sharded):
        return
    averaged, joined = trainer.ema.swapped_in(), processes.unsharded(trainer.objective)
    with averaged, joined, torch.random.fork_rng(devices=[]):
        sheet = trainer.stage.sheet()
    if not processes.main:
        return
    path = trainer.config.run_folder / "sheets" / f"step-{trainer.step:08d}.png"
    with writing(path, KEPT):
        save_picture(path, sheet.picture)
        if sheet.frames is not None:
            save_animation(path.with_suffix(".webp"), sheet.frames, sheet.fps)
        report.picture(trainer.step, sheet.picture)
