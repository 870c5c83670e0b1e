"""A training step of the mini base model beside the image model's, and the time spent on data."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch

from microcinema_core.data.shards import INDEX
from microcinema_core.files.paths import home_folder
from microcinema_core.train.plan import GIB

from .timing import seconds, working
from .training_parts import (
    FRAMES,
    PRECISIONS,
    SIDE,
    floor_of,
    step_of,
    trainer_of,
    waiting,
    write_random_set,
)

SET = "base"
FLOOR, PLAIN, AGAIN = "the image model", "MicroCinema", "MicroCinema, gradient checkpointing"


def table(
    *, rounds: int, dtype: torch.dtype = torch.bfloat16, batch: int = 8, folder: Path | None = None
) -> str:
    """Time the steps alternately, as Markdown. folder: the set (default: the mini world's, else noise)."""
    folder = home_folder() / "data" / SET if folder is None else folder
    with ExitStack() as stack:
        real = (folder / INDEX).is_file()
        used = folder if real else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not real:
            write_random_set(used, batch)
        trainers = {
            name: trainer_of(used, batch=batch, dtype=dtype, checkpointing=name == AGAIN)
            for name in (PLAIN, AGAIN)
        }
        steps = {FLOOR: floor_of(trainers[PLAIN]), **{name: step_of(one) for name, one in trainers.items()}}
        device = trainers[PLAIN].processes.device.type
        for step in steps.values():
            step()
        memory = {name: working(step, device) for name, step in steps.items()}
        seen: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(rounds):
            for name in list(steps) if turn % 2 == 0 else reversed(list(steps)):
                seen[name].append(seconds(steps[name], device))
        said = "There is no encoded set here: the clips are noise, and the time for reading data was not measured."
        if real:
            share = waiting(trainers[PLAIN], rounds)
            said = f"Reading data took {share:.2%} of the time of {rounds} whole steps, optimizer included."
    lines = [
        f"Forward and backward pass of {batch} clips of {FRAMES} frames of {SIDE * 8} pixels in {PRECISIONS[dtype]}; "
        "the image model runs on as many pictures.",
        "",
        "| | seconds | relative to the image model [range] | working memory | relative |",
        "|---|---|---|---|---|",
    ]
    for name, values in seen.items():
        ratios = [own / floor for own, floor in zip(values, seen[FLOOR], strict=True)]
        shown = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        lines.append(
            f"| {name} | {statistics.median(values):.2f} | {shown if name != FLOOR else '1'} | "
            f"{memory[name] / GIB:.2f} GiB | {memory[name] / max(memory[FLOOR], 1):.2f} |"
        )
    return "\n".join([*lines, "", said]) + "\n"
