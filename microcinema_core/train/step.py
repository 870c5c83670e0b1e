"""One training step: from batches to updated weights."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..messages import reason
from .config import OptimTable
from .stage import Batch
from .trainer import Trainer


class Diverged(RuntimeError):
    """The error for a loss or gradient that is not finite; the weights were not changed."""


class DataLost(RuntimeError):
    """The error for data that cannot be read; the step that needed it has not begun."""


def train_step(trainer: Trainer) -> dict[str, Tensor]:
    """Run one optimizer step over `accumulate` batches.

    A step whose gradients overflow only because of float16 loss scaling is skipped, and the scale lowered.

    Returns:
        Scalars to log: loss, the stage's own, and the gradient norm of each learning-rate group before clipping.

    Raises:
        Diverged: the loss or a gradient is not finite.
        DataLost: a batch could not be read.
    """
    config, master_weights, scaler = trainer.config, trainer.master_weights, trainer.scaler
    scalars = _gradients(trainer, _batches(trainer))
    scaler.unscale_(trainer.optimizer)
    norms = _gradient_norms(trainer)
    total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    finite = bool(torch.isfinite(scalars["loss"]) and torch.isfinite(total))
    too_large = scaler.is_enabled() and scaler.get_scale() > 1  # for float16: the scale was, not the gradient
    if not finite and not too_large:
        raise Diverged(f"step {trainer.step}: loss {scalars['loss']:.4g}, gradient norm {total:.4g}")
    if finite:
        with torch.no_grad():
            shrink = (config.optim.clip / (total + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([m.grad for m in master_weights.tensors if m.grad is not None], shrink)
        factor = rate_factor(config.optim, trainer.step, progress(trainer))
        for group, name in zip(trainer.optimizer.param_groups, trainer.groups, strict=True):
            group["lr"] = config.optim.lr * config.optim.groups.get(name, 1.0) * factor
        trainer.optimizer.step()
        master_weights.publish()
        trainer.ema.update(trainer.step)
    scaler.update()
    trainer.step += 1
    return {**scalars, **{f"grad/{name}": norm for name, norm in norms.items()}}


def _batches(trainer: Trainer) -> list[Batch]:
    """Read all batches of the step, before any random number is drawn."""
    position = trainer.batches.position
    try:
        return [trainer.batches.next() for _ in range(trainer.config.data.accumulate)]
    except (OSError, ValueError, SafetensorError) as error:
        trainer.batches.position = position
        raise DataLost(
            f"step {trainer.step}: the data could not be read ({reason(error)}); put it back, then "
            "continue with --resume"
        ) from error


def _gradients(trainer: Trainer, batches: list[Batch]) -> dict[str, Tensor]:
    """Accumulate the step's gradients in the master weights, and return the mean loss and scalars."""
    master_weights, processes = trainer.master_weights, trainer.processes
    seen: dict[str, list[Tensor]] = defaultdict(list)
    master_weights.clear_gradients()
    for k, batch in enumerate(batches, start=1):
        # Separate master weights take up each batch's gradients at once, so these must have been exchanged by then.
        alone = k < len(batches) and not master_weights.separate
        quiet = processes.without_exchange(trainer.objective) if alone else contextlib.nullcontext()
        with quiet:
            loss, extra = trainer.objective(
                processes.to_device(batch), processes.shared_random(trainer.generator)
            )
            trainer.scaler.scale(loss / len(batches)).backward()
        master_weights.collect_gradients()
        for name, value in {"loss": loss.detach(), **extra}.items():
            seen[name].append(value)
    # NaN marks a batch without a clip in some band; a loss that is not finite must be seen.
    scalars = {
        name: torch.stack(values).mean() if name == "loss" else torch.stack(values).nanmean()
        for name, values in seen.items()
    }
    scalars["loss"] = processes.mean(scalars["loss"])
    return scalars


def _gradient_norms(trainer: Trainer) -> dict[str, Tensor]:
    """Return the gradient norm of each learning-rate group, across FSDP shards."""
    squares: dict[str, list[Tensor]] = {}
    for group, name in zip(trainer.optimizer.param_groups, trainer.groups, strict=True):
        grads = [p.grad for p in group["params"] if p.grad is not None]
        squares.setdefault(name, []).extend(torch._foreach_norm(grads) if grads else [])
    none = torch.zeros((), device=trainer.processes.device)
    norms = {name: torch.linalg.vector_norm(torch.stack(n)) if n else none for name, n in squares.items()}
    return {name: trainer.processes.norm(norm) for name, norm in norms.items()}


def progress(trainer: Trainer) -> float:
    """Return the share of the budget used, in [0, 1]: by steps or by minutes, whichever is larger."""
    optim = trainer.config.optim
    by_steps = trainer.step / optim.max_steps if optim.max_steps else 0.0
    by_minutes = trainer.elapsed / (60 * optim.max_minutes) if optim.max_minutes else 0.0
    return min(1.0, max(by_steps, by_minutes))


def rate_factor(optim: OptimTable, step: int, progress: float) -> float:
    """Return the factor on `optim.lr`: a linear warm-up over steps, times the decay over `progress`."""
    rise = min(1.0, (step + 1) / max(optim.warmup_steps, 1))
    fallen = min(1.0, max(0.0, (progress - optim.decay_from) / (1 - optim.decay_from)))
    fall = {"none": 1.0, "linear": 1 - fallen, "cosine": 0.5 * (1 + math.cos(math.pi * fallen))}[optim.decay]
    return rise * fall
