"""Training of one stage on one device, without waiting for it within a step: nothing is read back but now and then.

Networks, loss, optimizer, EMA, checkpoints and exports are those of `microcinema_core.train`; random numbers and
batches come from the device. It needs neither accelerate nor tqdm.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from microcinema_core.data.folder_lock import locked_folder
from microcinema_core.train.checkpoints import (
    export,
    resume_from_checkpoint,
    save_checkpoint,
    saved_checkpoints,
)
from microcinema_core.train.config import TrainConfig
from microcinema_core.train.loop import stop_on_signals
from microcinema_core.train.processes import Processes
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.sheets import save_picture
from microcinema_core.train.stage import Stage
from microcinema_core.train.step import Diverged, progress, rate_factor
from microcinema_core.train.trainer import Trainer, build

from .batches import RenderedBatches
from .draws import DeviceRandom

logger = logging.getLogger(__name__)

CHECKPOINT_MINUTES = 2.0


class OneDevice(Processes):
    """This process alone, on a device; what `Processes` is where accelerate joins several."""

    def __init__(self, device: torch.device, precision: str) -> None:
        self._device, self.precision, self.sharded = device, precision, False

    @property
    def device(self) -> torch.device:
        """The device."""
        return self._device

    world, rank, main = 1, 0, True  # type: ignore[assignment]

    def shared_random(self, generator: torch.Generator) -> SharedRandom:
        """Return draws from the device's own generator."""
        return DeviceRandom(generator)

    def wait(self) -> None:
        """Return at once: there is nobody to wait for."""


def step(trainer: Trainer) -> Mapping[str, Tensor]:
    """Run one training step and return its scalars, on the device; it never waits for the device.

    A gradient that is not finite is found later, by `Row.write`.
    """
    weights, optim = trainer.master_weights, trainer.config.optim
    weights.clear_gradients()
    draws = trainer.processes.shared_random(trainer.generator)
    loss, extra = trainer.objective(trainer.batches.next(), draws)
    loss.backward()
    weights.collect_gradients()
    with torch.no_grad():
        gradients = [tensor.grad for tensor in weights.tensors if tensor.grad is not None]
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (optim.clip / (total + 1e-6)).clamp(max=1.0))
    factor = rate_factor(optim, trainer.step, progress(trainer))
    for group, name in zip(trainer.optimizer.param_groups, trainer.groups, strict=True):
        group["lr"] = optim.lr * optim.groups.get(name, 1.0) * factor
    trainer.optimizer.step()
    weights.publish()
    trainer.ema.update(trainer.step)
    trainer.step += 1
    return {"loss": loss.detach(), **extra, "grad": total}


@dataclass
class Row:
    """The sums of the scalars since the last row of `stats.jsonl`, kept on the device."""

    sums: dict[str, Tensor]
    counts: dict[str, Tensor]
    steps: int = 0

    @classmethod
    def new(cls) -> Row:
        """Return an empty row."""
        return cls({}, {})

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add a step's scalars; NaN, for a part of the noise schedule that a batch has no clip of, counts as none."""
        self.steps += 1
        for name, value in scalars.items():
            here = value.float() if name in ("loss", "grad") else value.float().nan_to_num(0.0)
            there = torch.ones_like(here) if name in ("loss", "grad") else (~value.isnan()).float()
            self.sums[name] = self.sums[name] + here if name in self.sums else here
            self.counts[name] = self.counts[name] + there if name in self.counts else there

    def write(self, trainer: Trainer, seconds: float) -> None:
        """Append the means to `stats.jsonl`, log them, and start anew.

        Raises:
            Diverged: a loss or gradient was not finite; nothing has been saved since.
        """
        if not self.steps:
            return
        means = {name: float(total / self.counts[name].clamp(min=1)) for name, total in self.sums.items()}
        if not (math.isfinite(means["loss"]) and math.isfinite(means["grad"])):
            raise Diverged(
                f"step {trainer.step}: loss {means['loss']:.4g}, gradient norm {means['grad']:.4g} since the last row"
            )
        row = {
            "step": trainer.step,
            "seconds": round(trainer.elapsed, 1),
            "seconds_per_step": seconds / self.steps,
        }
        with (trainer.config.run_folder / "stats.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, **means}) + "\n")
        items = self.steps * trainer.step_items / seconds if seconds else 0.0
        logger.info("step %d  loss %.4f  %.0f items/s", trainer.step, means["loss"], items)
        self.sums, self.counts, self.steps = {}, {}, 0


def train_stage(
    config: TrainConfig,
    stage: Stage,
    batches: RenderedBatches,
    device: torch.device,
    *,
    compiled: bool = False,
) -> bool:
    """Train a stage until its `optim.max_minutes` are used, going on from its newest checkpoint.

    The EMA weights are exported every `log.export_minutes`, and when it ends, by time or by a signal.

    Args:
        config: the run.
        stage: networks and loss.
        batches: the data; its draws are replaced by the run's own.
        device: where all of them live.
        compiled: whether the networks are compiled, which takes a minute or two at first.

    Returns:
        Whether the time was used up; false after an interruption.

    Raises:
        Diverged: a loss or gradient is not finite; the last export and checkpoint are good.
        ValueError, NotWritten: as for `microcinema_core.train.loop.run`.
    """
    with locked_folder(config.run_folder, "wait until it has ended"):
        begun = saved_checkpoints(config.run_folder / "checkpoints")
        if not begun:
            stage.prepare()
        trainer = build(config, stage, OneDevice(device, config.precision))
        trainer.generator = torch.Generator(device).manual_seed(config.seed)
        trainer.batches, batches.random = batches, DeviceRandom(trainer.generator)
        if begun:
            _resume(trainer)
        if compiled:
            for module in stage.modules.values():
                module.compile(dynamic=False)
        return _run(trainer)


def _resume(trainer: Trainer) -> None:
    """Go on from the newest checkpoint.

    Raises:
        ValueError: as for `resume_from_checkpoint`, or a run that was begun on another kind of device.
    """
    try:
        resume_from_checkpoint(trainer)
    except RuntimeError as error:  # the state of a generator has another size on another kind of device
        raise ValueError(
            f"{trainer.config.run_folder} was begun on another kind of device than {trainer.processes.device.type}: go "
            "on there, or move the folder away"
        ) from error


def _run(trainer: Trainer) -> bool:
    log, row = trainer.config.log, Row.new()
    exported = saved = trainer.elapsed
    row_at = trainer.elapsed
    with stop_on_signals() as caught:
        while progress(trainer) < 1.0 and not caught:
            started = time.monotonic()
            row.add(step(trainer))
            if trainer.step % log.every == 0:
                _wait(trainer.processes.device)
            trainer.elapsed += time.monotonic() - started
            if trainer.step % log.every and progress(trainer) < 1.0:
                continue
            row.write(trainer, trainer.elapsed - row_at)
            row_at = trainer.elapsed
            if trainer.elapsed - exported >= 60 * log.export_minutes:
                exported = _timed(trainer, export)
            if trainer.elapsed - saved >= 60 * CHECKPOINT_MINUTES:
                saved = _timed(trainer, save_checkpoint)
                row_at = trainer.elapsed
        row.write(trainer, trainer.elapsed - row_at)
        save_checkpoint(trainer)
        export(trainer)
    if not caught:
        save_sheet(trainer)
    return not caught


def _timed(trainer: Trainer, write: Callable[[Trainer], None]) -> float:
    """Write something on the run's time, and return the time after it."""
    started = time.monotonic()
    write(trainer)
    trainer.elapsed += time.monotonic() - started
    return trainer.elapsed


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def save_sheet(trainer: Trainer) -> None:
    """Save a sample sheet of the EMA weights in the run's folder."""
    with trainer.ema.swapped_in():
        sheet = trainer.stage.sheet()
    save_picture(trainer.config.run_folder / "sheets" / f"step-{trainer.step:08d}.png", sheet.picture)
