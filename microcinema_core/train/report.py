"""Statistics of a run: stats.jsonl, TensorBoard and Weights & Biases where available, progress bar."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import json_text
from ..files.atomic import atomic_write
from .config import TrainConfig
from .memory import peak_bytes

logger = logging.getLogger(__name__)


class Report:
    """A collector of scalars that writes their means at intervals; it does nothing where `shown` is false."""

    def __init__(self, config: TrainConfig, step: int = 0, *, shown: bool = True) -> None:
        """Open the outputs of a run.

        Args:
            config: the run.
            step: the step to continue from; rows of later steps are dropped, as those steps run again.
            shown: whether to report at all; true in the first process only.
        """
        self.shown = shown
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.since, self.written, self.left = time.monotonic(), step, 0.0
        if not shown:
            return
        folder = config.run_folder
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "stats.jsonl"
        _forget_after(self.file, step)
        self.boards: list[TensorBoard | WeightsAndBiases] = [*_tensorboard(folder), *_wandb(config)]
        self.bar = _bar(config, step)

    def add(self, scalars: Mapping[str, Tensor | float]) -> None:
        """Add the scalars of one step to the means; NaN is no number to average and is left out."""
        if self.shown:
            for name, value in scalars.items():
                if not math.isnan(number := float(value)):
                    self.sums[name] += number
                    self.counts[name] += 1

    def tick(self, step: int, elapsed: float, progress: float) -> None:
        """Update the progress bar after a step.

        Args:
            step: steps done so far.
            elapsed: seconds of training so far.
            progress: share of the budget used, in [0, 1].
        """
        self.left = elapsed * (1 - progress) / progress if progress > 0 else 0.0
        if self.shown and not self.bar.disable:
            loss = self.sums["loss"] / max(self.counts["loss"], 1)
            left = f"{self.left / 60:.0f} min left, {peak_bytes() / 2**30:.1f} GiB"
            self.bar.set_postfix_str(f"loss {loss:.4f}, {left}", refresh=False)
            self.bar.update(step - self.bar.n)

    def write(self, step: int, elapsed: float, rates: Mapping[str, float]) -> None:
        """Write a row with the means since the last call.

        Args:
            step: steps done so far.
            elapsed: seconds of training so far.
            rates: learning rates by group.
        """
        if not self.shown:
            return
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        seconds = (time.monotonic() - self.since) / max(step - self.written, 1)
        row: dict[str, Any] = {
            "step": step,
            "seconds": round(elapsed, 1),
            "seconds_per_step": round(seconds, 4),
        }
        row |= {name: float(f"{value:.6g}") for name, value in sorted(means.items())}
        row |= {f"lr/{name}": rate for name, rate in rates.items()}
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        words = "  ".join(f"{name} {value:.4f}" for name, value in means.items() if "/" not in name)
        if self.bar.disable:
            logger.info("step %d  %s  %.2f s/step  %.0f min left", step, words, seconds, self.left / 60)
        for board in self.boards:
            board.scalars(step, {name: value for name, value in row.items() if name != "step"})
        self.sums.clear()
        self.counts.clear()
        self.since, self.written = time.monotonic(), step

    def picture(self, step: int, picture: Tensor) -> None:
        """Send a sample sheet `3 h w` in [0, 1] to TensorBoard and Weights & Biases."""
        for board in self.boards if self.shown else ():
            board.picture(step, picture)

    def close(self) -> None:
        """Close all outputs."""
        if self.shown:
            self.bar.close()
            for board in self.boards:
                board.close()


def _bar(config: TrainConfig, step: int) -> Any:
    """Return a progress bar with speed, loss, time left and memory; disabled where stderr is no terminal."""
    from tqdm import tqdm

    watched = sys.stderr.isatty() and sys.platform != "win32"
    total = config.optim.max_steps or None
    return tqdm(initial=step, total=total, unit="step", desc=config.name, disable=not watched)


def _forget_after(file: Path, step: int) -> None:
    """Drop the rows of later steps, and a last row that a kill cut short."""
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    kept = [line for line in lines if _step_of(line) <= step]
    with atomic_write(file) as part:
        part.write_text("".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    """Return the step of a row; infinity for one that is not whole."""
    try:
        return float(json_text.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


class TensorBoard:
    """Output to TensorBoard event files."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars by name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, picture: Tensor) -> None:
        """Write a sample sheet `3 h w` in [0, 1]."""
        self.writer.add_image("sheet", picture, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()


class WeightsAndBiases:
    """Output to a run of Weights & Biases."""

    def __init__(self, library: Any, run: Any) -> None:
        self.library, self.run = library, run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars by name."""
        self.run.log(dict(values), step=step)

    def picture(self, step: int, picture: Tensor) -> None:
        """Log a sample sheet `3 h w` in [0, 1]."""
        self.run.log({"sheet": self.library.Image(picture)}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


def _tensorboard(folder: Path) -> list[TensorBoard]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed: statistics go to stats.jsonl only")
        return []
    return [TensorBoard(SummaryWriter(str(folder / "tensorboard")))]


def _wandb(config: TrainConfig) -> list[WeightsAndBiases]:
    if not config.log.wandb:
        return []
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError as error:
        raise ValueError(
            f"log.wandb is {config.log.wandb!r}, but wandb is not installed: pip install wandb, or leave the key out"
        ) from error
    settings = dataclasses.asdict(config)
    folder = str(config.run_folder)
    run = wandb.init(project=config.log.wandb, id=config.name, resume="allow", config=settings, dir=folder)
    return [WeightsAndBiases(wandb, run)]
