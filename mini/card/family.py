"""Image models and base model in a limited time on one card: `python -m mini.train --all --device cuda --minutes N`.

VAE and text encoder are those of an image file, the shipped one by default; both are frozen. The same command goes on
where it was: each stage keeps its checkpoints and knows the time that it has used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_vae
from microcinema_core.files.paths import home_folder
from microcinema_core.networks.vae import FoldedVAE
from microcinema_core.train.base import BaseStage
from microcinema_core.train.config import TrainConfig, load
from microcinema_core.train.stage import Stage

from ..family import minutes_left
from ..stages import image
from ..world.archive import Archive, read_archive
from .batches import SHOWN, RenderedBatches, write_small_set
from .draws import DeviceRandom
from .loop import train_stage
from .world import World

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).parents[1] / "configs" / "card"
START = Path(__file__).parents[2] / "weights" / "mini_image.safetensors"
SHARES = {"card_image": 0.45, "card_image_small": 0.15, "card_base": 0.4}
"""Share of the time of each stage, in order."""
STAGES: dict[str, Callable[[TrainConfig], Stage]] = {"image": image.build, "base": BaseStage}


@dataclass(frozen=True)
class CardRun:
    """What a run on one card is given.

    Attributes:
        archive: the mini world in one file.
        device: "cuda", "cuda:1", or "cpu" for a trial.
        minutes: time of the whole command, reading the archive included.
        batch: items of a batch of pictures, and of clips an eighth of it; 0 takes the configs'.
        start: image file with the VAE and the text encoder.
        compiled: whether networks are compiled.
        workers: processes that decode the archive.
    """

    archive: Path
    device: str
    minutes: float
    batch: int = 0
    start: Path = START
    compiled: bool = False
    workers: int = 1


def train_family(run: CardRun, configs: Path = CONFIGS) -> int:
    """Train all stages in order; returns the exit code, 130 after an interruption.

    Raises:
        ValueError: no such archive, device or start file, or too little time.
    """
    began = time.monotonic()
    device = _device(run.device)
    archive = read_archive(run.archive, workers=run.workers)
    vae = load_vae(read_checkpoint(run.start, expect_roles=("image",))).to(device)
    sprites = archive.sprites.to(device)
    worlds = {
        (split, role): World(archive, split, role, device, sprites)
        for split in ("train", "validation")
        for role in ("image", "base")
    }
    _write_sets(worlds, vae, archive)  # type: ignore[arg-type]
    left = _minutes_to_train(run, began)
    logger.info(
        "%d subjects, %d sprites; %.1f minutes are left to train", len(archive.entries), len(sprites), left
    )
    if left <= 0:
        raise ValueError(
            f"--minutes is {run.minutes:g}, and reading the archive took {run.minutes - left:.1f}: give more"
        )
    for name, share in SHARES.items():
        config = card_config(configs / f"{name}.toml", run, minutes=share * left)
        if not minutes_left(config):
            logger.info("%s is done", name)
            continue
        logger.info("%s: %.1f minutes, batches of %d", name, config.optim.max_minutes, config.data.batch)
        batches = RenderedBatches(
            worlds["train", config.stage], vae, config.data.batch, DeviceRandom(torch.Generator(device))
        )
        if not train_stage(config, STAGES[config.stage](config), batches, device, compiled=run.compiled):
            return 130
    return 0


def card_config(path: Path, run: CardRun, *, minutes: float) -> TrainConfig:
    """Return a stage's config with the run's time, batch and start file."""
    config = load(path)
    optim = replace(config.optim, max_minutes=minutes)
    given = (
        {"vae": str(run.start.absolute()), "text": str(run.start.absolute())}
        if config.stage == "image"
        else {}
    )
    batch = config.data.batch
    if run.batch:
        batch = run.batch if config.stage == "image" else max(1, run.batch // 8)
    return replace(
        config, optim=optim, data=replace(config.data, batch=batch), model={**config.model, **given}
    )


def _minutes_to_train(run: CardRun, began: float) -> float:
    return run.minutes - (time.monotonic() - began) / 60


def _device(name: str) -> torch.device:
    """Return the device.

    Raises:
        ValueError: there is no such device.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device is {name!r}, which cannot be used here ({str(error).splitlines()[0]}); cuda needs an NVIDIA "
            "card and a torch that was built for it"
        ) from error
    return device


def _write_sets(worlds: dict[tuple[str, str], World], vae: FoldedVAE, archive: Archive) -> None:
    """Write the small sets that the stages open, always the same."""
    for (split, role), world in worlds.items():
        name = f"card-{role}" if split == "train" else f"card-{role}-{split}"
        random = DeviceRandom(torch.Generator(world.device).manual_seed(len(archive.entries)))
        write_small_set(home_folder() / "data" / name, RenderedBatches(world, vae, SHOWN, random))
