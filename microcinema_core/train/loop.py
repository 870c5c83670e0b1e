"""The training loop, one for all stages: from config to exported weights, readable from top to bottom."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .checkpoints import export, load_checkpoint, refuse_to_overwrite, save_checkpoint
from .config import OptimTable, TrainConfig
from .report import Report
from .sheets import save_picture
from .stage import Stage, build_stage
from .trainer import Trainer, build

logger = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss or a gradient is not finite; the last checkpoint is from before that."""


def run(config: TrainConfig, *, resume: bool = False, stage: Stage | None = None) -> Trainer:
    """Train one stage from its config to its exported file. Returns the trainer, finished or interrupted."""
    # Build, and start or go on.
    if config.threads:
        torch.set_num_threads(config.threads)
    if not resume:
        refuse_to_overwrite(config)
    stage = build_stage(config) if stage is None else stage
    if not resume:
        stage.prepare()
    trainer = build(config, stage)
    if resume:
        load_checkpoint(trainer)
    else:
        _announce(trainer)
    report = Report(config.run_folder, trainer.step)

    # Train until the budget is used or someone says stop.
    last = dict.fromkeys(("checkpoint", "sheet", "export"), trainer.elapsed)
    reported = trainer.step
    with _stop_on_signals() as stopped:
        while progress(trainer) < 1.0 and not stopped:
            started = time.monotonic()
            report.add(train_step(trainer))
            trainer.elapsed += time.monotonic() - started

            if trainer.step % config.log.every == 0:
                rates = {
                    n: g["lr"] for n, g in zip(trainer.groups, trainer.optimizer.param_groups, strict=True)
                }
                report.write(
                    trainer.step,
                    steps=trainer.step - reported,
                    elapsed=trainer.elapsed,
                    progress=progress(trainer),
                    rates=rates,
                )
                reported = trainer.step
            if _due(trainer, last, "checkpoint", config.log.checkpoint_minutes, config.log.checkpoint_steps):
                save_checkpoint(trainer)
            if _due(trainer, last, "sheet", config.log.sheet_minutes):
                look(trainer, report)
            if _due(trainer, last, "export", config.log.export_minutes):
                export(trainer)

    # Leave everything as a person would want to find it.
    save_checkpoint(trainer)
    if not stopped:
        look(trainer, report)
    export(trainer)
    return trainer


def _announce(trainer: Trainer) -> None:
    """Write down and log what is about to be trained."""
    config = trainer.config
    config.run_folder.mkdir(parents=True, exist_ok=True)
    (config.run_folder / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=1))
    logger.info("%s", json.dumps(dataclasses.asdict(config)))
    for name in dict.fromkeys(trainer.groups):
        members = [
            g for g, n in zip(trainer.optimizer.param_groups, trainer.groups, strict=True) if n == name
        ]
        count = sum(p.numel() for g in members for p in g["params"])
        logger.info(
            "group %s: %.2f M parameters, lr x %g", name, count / 1e6, config.optim.groups.get(name, 1.0)
        )
    logger.info(
        "%d items of data, %d a step", len(trainer.stage.dataset), config.data.batch * config.data.accumulate
    )


@contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM so that the loop can save and end between steps."""
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


def train_step(trainer: Trainer) -> dict[str, Tensor]:
    """One optimizer step over `accumulate` batches; returns scalars. Diverged if anything is not finite."""
    config, masters = trainer.config, trainer.masters
    scalars: dict[str, Tensor] = {}
    masters.clear_gradients()
    for _ in range(config.data.accumulate):
        loss, extra = trainer.stage.loss(trainer.feed.next(), trainer.generator)
        (loss / config.data.accumulate).backward()
        masters.collect_gradients()
        for name, value in {"loss": loss.detach(), **extra}.items():
            scalars[name] = scalars.get(name, torch.zeros(())) + value / config.data.accumulate

    norms = _gradient_norms(trainer)
    total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    if not (torch.isfinite(scalars["loss"]) and torch.isfinite(total)):
        raise Diverged(f"step {trainer.step}: loss {scalars['loss']:.4g}, gradient norm {total:.4g}")
    with torch.no_grad():
        shrink = (config.optim.clip / (total + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([m.grad for m in masters.tensors if m.grad is not None], shrink)

    factor = rate_factor(config.optim, trainer.step, progress(trainer))
    for group, name in zip(trainer.optimizer.param_groups, trainer.groups, strict=True):
        group["lr"] = config.optim.lr * config.optim.groups.get(name, 1.0) * factor
    trainer.optimizer.step()
    masters.publish()
    trainer.average.update(trainer.step)
    trainer.step += 1
    return {**scalars, **{f"grad/{name}": norm for name, norm in norms.items()}}


def _gradient_norms(trainer: Trainer) -> dict[str, Tensor]:
    squares: dict[str, list[Tensor]] = {}
    for group, name in zip(trainer.optimizer.param_groups, trainer.groups, strict=True):
        grads = [p.grad for p in group["params"] if p.grad is not None]
        squares.setdefault(name, []).extend(torch._foreach_norm(grads))
    return {
        name: torch.linalg.vector_norm(torch.stack(n)) if n else torch.zeros(())
        for name, n in squares.items()
    }


def progress(trainer: Trainer) -> float:
    """Share of the budget used, by steps or by minutes, whichever is further."""
    optim = trainer.config.optim
    by_steps = trainer.step / optim.max_steps if optim.max_steps else 0.0
    by_minutes = trainer.elapsed / (60 * optim.max_minutes) if optim.max_minutes else 0.0
    return min(1.0, max(by_steps, by_minutes))


def rate_factor(optim: OptimTable, step: int, progress: float) -> float:
    """Learning rate over optim.lr: a linear rise over the first steps times the decay."""
    rise = min(1.0, (step + 1) / max(optim.warmup_steps, 1))
    fallen = min(1.0, max(0.0, (progress - optim.decay_from) / (1 - optim.decay_from)))
    fall = {"none": 1.0, "linear": 1 - fallen, "cosine": 0.5 * (1 + math.cos(math.pi * fallen))}[optim.decay]
    return rise * fall


@torch.no_grad()
def look(trainer: Trainer, report: Report) -> None:
    """A sample sheet of the averaged weights; it changes no random state."""
    with trainer.average.shown(), torch.random.fork_rng(devices=[]):
        picture = trainer.stage.sheet()
    save_picture(trainer.config.run_folder / "sheets" / f"step-{trainer.step:08d}.png", picture)
    report.picture(trainer.step, picture)
