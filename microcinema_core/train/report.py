"""A run's figures: one line of JSON per interval, TensorBoard where it is installed, and a line for a person."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

logger = logging.getLogger(__name__)


class Report:
    """Collects scalars step by step and writes their means."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        """`step`: where the run goes on; what was written later than that was of steps that are done again."""
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "stats.jsonl"
        _forget_after(self.file, step)
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.since = time.monotonic()
        self.board = _board(folder)

    def add(self, scalars: Mapping[str, Tensor | float]) -> None:
        for name, value in scalars.items():
            self.sums[name] += float(value)
            self.counts[name] += 1

    def write(
        self, step: int, *, steps: int, elapsed: float, progress: float, rates: Mapping[str, float]
    ) -> None:
        """Means since the last call, over `steps` steps; `elapsed` seconds of training, `progress` of the budget."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        seconds = (time.monotonic() - self.since) / max(steps, 1)
        row: dict[str, Any] = {
            "step": step,
            "seconds": round(elapsed, 1),
            "seconds_per_step": round(seconds, 4),
        }
        row |= {name: float(f"{value:.6g}") for name, value in sorted(means.items())}
        row |= {f"lr/{name}": rate for name, rate in rates.items()}
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        left = elapsed * (1 - progress) / progress if progress > 0 else 0.0
        shown = "  ".join(f"{name} {value:.4f}" for name, value in means.items() if "/" not in name)
        logger.info("step %d  %s  %.2f s/step  %.0f min left", step, shown, seconds, left / 60)
        if self.board is not None:
            for name, value in row.items():
                if name != "step":
                    self.board.add_scalar(name, value, step)
        self.sums.clear()
        self.counts.clear()
        self.since = time.monotonic()

    def picture(self, step: int, picture: Tensor) -> None:
        if self.board is not None:
            self.board.add_image("sheet", picture, step)


def _forget_after(file: Path, step: int) -> None:
    """Drop the rows of later steps, and one that a kill cut short."""
    if not file.exists():
        return
    whole = [line for line in file.read_text().splitlines() if line.endswith("}")]
    kept = [line for line in whole if json.loads(line)["step"] <= step]
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept))
    os.replace(temporary, file)


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed: figures go to stats.jsonl alone")
        return None
    return SummaryWriter(str(folder / "tensorboard"))
