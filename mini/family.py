"""All stages of the mini family in order, from the raw data to the exported files: `python -m mini.train --all`.

Every step says whether it is done, so an interrupted command goes on where it was. Sets are encoded and networks are
trained by the commands of their own, with the same files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microcinema_core.data.shards import INDEX, read_index
from microcinema_core.files.paths import home_folder
from microcinema_core.train.checkpoints import saved_checkpoints
from microcinema_core.train.config import TrainConfig, load

from .world import emoji, encode, subset
from .world.clips import FRAMES, NAMED_SHARE, RIGID_MOVED_SHARE

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent / "configs"
SETS = ("image", "image-validation", "base", "base-validation", "tsr", "tsr-validation")
SUBSETS = {
    "base-oneway": ("left", "up", "towards"),
    "base-moved": ("left", "right", "up", "down", "towards", "away"),
}
"""Parts of the set `base`, by the added motions that they keep."""
CLIPS_AS = {"rigid": True, "moved": RIGID_MOVED_SHARE}
PICTURES_AS = {"named": NAMED_SHARE}
"""The settings that sets of clips and of pictures are encoded with."""
FRAMES_A_MINUTE = 4000
"""Frames that one core renders and encodes in a minute, for the estimate of the time left."""
PREPARE_MINUTES = 10.0
STEP_MINUTES = 3.5 / 60
"""A step of a run whose budget is in steps, until the run has shown how long one takes: of 8 clips."""

Train = Callable[[list[str]], int]
"""The training command: arguments -> exit code."""


@dataclass(frozen=True)
class Step:
    """One step of the family.

    Attributes:
        name: what it makes, for the log.
        minutes: how long it will still take; 0 if it is done.
        run: does it, and returns an exit code.
    """

    name: str
    minutes: Callable[[], float]
    run: Callable[[], int]


def steps(train: Train, configs: Path = CONFIGS) -> list[Step]:
    """Return the steps in order; `train` runs the training command."""
    home = home_folder()
    vae = home / "runs" / "mini_vae" / "mini_vae.safetensors"

    def trained(name: str) -> Step:
        path = configs / f"mini_{name}.toml"
        config = load(path)
        return Step(
            f"train {config.name}", lambda: minutes_left(config), lambda: train(_arguments(path, config))
        )

    def encoded(name: str) -> Step:
        role, split = encode.parse_name(name)
        count = encode.HELD_OUT_COUNT if split in encode.HELD_OUT else encode.DEFAULT_COUNTS[role]
        index = home / "data" / name / INDEX
        minutes = count * FRAMES[role] / FRAMES_A_MINUTE
        drawn_as = PICTURES_AS if role == "image" else CLIPS_AS
        return Step(
            f"encode {name}",
            lambda: 0.0 if _holds(index, count, drawn_as) else minutes,
            lambda: _returns_0(encode.main, [name, "--vae", str(vae), "--workers", "1", *_flags(drawn_as)]),
        )

    def selected(name: str, motions: Sequence[str]) -> Step:
        data = home / "data"
        return Step(
            f"select {name}",
            lambda: 0.0 if (data / name / INDEX).exists() else 1.0,
            lambda: _returns_0(subset.select, data / "base", data / name, list(motions)),
        )

    catalogue = emoji.emoji_folder(home) / "catalogue.jsonl"
    return [
        Step(
            "prepare the emoji",
            lambda: 0.0 if catalogue.exists() else PREPARE_MINUTES,
            lambda: _returns_0(emoji.prepare, home),
        ),
        trained("vae"),
        *map(encoded, SETS),
        *map(trained, ("vae_decoder", "text", "image")),
        *(selected(name, motions) for name, motions in SUBSETS.items()),
        *map(trained, ("base_start", "base_oneway", "base_moved", "base", "tsr")),
    ]


def _holds(index: Path, count: int, drawn_as: Mapping[str, object]) -> bool:
    """Whether a set is there, long enough and drawn so; encoding refuses to go on with one that is drawn otherwise."""
    if not index.exists():
        return False
    found = read_index(index)
    return found["count"] >= count and drawn_as.items() <= found.items()


def _flags(drawn_as: Mapping[str, object]) -> list[str]:
    """Return the encoding command's options for these settings."""
    named = ((f"--{name}", value) for name, value in drawn_as.items())
    return [text for name, value in named for text in ([name] if value is True else [name, str(value)])]


def _returns_0(command: Callable[..., object], *arguments: object) -> int:
    command(*arguments)
    return 0


def _arguments(path: Path, config: TrainConfig) -> list[str]:
    begun = saved_checkpoints(config.run_folder / "checkpoints")
    return [str(path), *(["--resume"] if begun else [])]


def minutes_left(config: TrainConfig) -> float:
    """Return how long a run will still train: 0 if its budget is used up and its file is there.

    A file without checkpoints was put there from elsewhere, and is done.
    """
    optim, (step, minutes), there = config.optim, progress(config), config.export_path.exists()
    if not step and there:
        return 0.0
    limits = [optim.max_minutes - minutes] if optim.max_minutes else []
    if optim.max_steps:
        limits.append((optim.max_steps - step) * (minutes / step if step else STEP_MINUTES))
    left = max(0.0, min(limits))
    return left if left or there else 0.1


def progress(config: TrainConfig) -> tuple[int, float]:
    """Return the steps and the minutes that a run has behind it, by its newest checkpoint."""
    found = saved_checkpoints(config.run_folder / "checkpoints")
    if not found:
        return 0, 0.0
    state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
    return int(state["step"]), float(state["elapsed"]) / 60


def run_all(train: Train, configs: Path = CONFIGS) -> int:
    """Run the steps that are not done; returns 0, or the exit code of the first that fails or is interrupted."""
    order = steps(train, configs)
    for number, step in enumerate(order, start=1):
        if not step.minutes():
            logger.info("step %d of %d: %s, done", number, len(order), step.name)
            continue
        left = sum(other.minutes() for other in order[number - 1 :])
        logger.info("step %d of %d: %s; about %s left in all", number, len(order), step.name, _duration(left))
        if code := step.run():
            return code
    return 0


def plan(train: Train, configs: Path = CONFIGS) -> str:
    """Return the steps and the time that each will still take, one per line."""
    order = steps(train, configs)
    lines = [
        f"{step.name:<24}{_duration(step.minutes()) if step.minutes() else 'done':>12}" for step in order
    ]
    return "\n".join([*lines, f"{'in all':<24}{_duration(sum(step.minutes() for step in order)):>12}"])


def _duration(minutes: float) -> str:
    whole = max(1, round(minutes)) if minutes else 0
    return f"{whole // 60} h {whole % 60:02d} min"
