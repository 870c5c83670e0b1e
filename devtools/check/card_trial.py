"""A tiny stage on one card with random subjects, for checks that a device needs: everything is made on the spot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from devtools.check import tiny
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_vae
from microcinema_core.files.paths import HOME_VARIABLE
from microcinema_core.train.config import load
from microcinema_core.train.trainer import Trainer, build
from mini.card.batches import RenderedBatches, write_small_set
from mini.card.draws import DeviceRandom
from mini.card.family import CONFIGS, STAGES
from mini.card.loop import OneDevice
from mini.card.world import World
from mini.world.archive import Archive, Entry
from mini.world.caption_bank import HEADS
from mini.world.emoji import SIZE

BATCH = 2


def random_archive() -> Archive:
    """Return a world of three subjects of noise, one of them a still, with captions of two tokens."""
    generator = torch.Generator().manual_seed(0)
    orders = (tuple(range(8)), (0, 1, 0, 2), (0,))
    entries = [Entry(str(n), f"key{n}", "train", True, order) for n, order in enumerate(orders)]
    count = sum(entry.stored for entry in entries)
    sprites = torch.randint(0, 256, (count, 4, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    sprites[:, 3] = 255
    photos = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    captions = {
        "heads": torch.full((len(entries), HEADS, 2), 320, dtype=torch.int32),
        "head_lengths": torch.full((len(entries), HEADS), 2, dtype=torch.int32),
        "listed": torch.zeros(len(entries), HEADS, dtype=torch.bool),
        "tails": torch.full((2, 13, 13, 2), 321, dtype=torch.int32),
        "tail_lengths": torch.full((2, 13, 13), 2, dtype=torch.int32),
    }
    return Archive(entries, sprites, {"train": photos, "validation": photos}, captions)


def build_trainer(folder: Path, device: torch.device, *, stage: str = "base") -> Trainer:
    """Build a stage of the tiny family as a run on one card does, ready for its first step.

    Args:
        folder: an empty folder, which stands for $MICROCINEMA_HOME meanwhile.
        device: where to train.
        stage: "base" or "image".
    """
    tiny.write_family(folder, unet=tiny.ATTENDING, dtype=torch.float32)
    archive = random_archive()
    config = load(CONFIGS / f"card_{stage}.toml")
    world = World(archive, "train", config.stage, device)  # type: ignore[arg-type]
    image = folder / "tiny_image.safetensors"
    vae = load_vae(read_checkpoint(image)).to(device)
    batches = RenderedBatches(world, vae, BATCH, DeviceRandom(torch.Generator(device).manual_seed(0)))
    model: dict[str, Any] = {"image_file": str(image), "hidden": 16}
    if stage == "image":
        shape = {
            "model_channels": 32,
            "channel_mult": [1, 2],
            "transformer_depth": [1, 1],
            "context_dim": tiny.CONTEXT,
        }
        model = {"vae": str(image), "text": str(image), "unet": shape}
    config = replace(
        config,
        data=replace(config.data, batch=BATCH),
        model={**config.model, **model},
        init_from=str(image) if stage == "base" else "",
    )
    with _home(folder):
        for name in (config.data.folder, config.data.test_folder):
            write_small_set(folder / "data" / name, batches)
        built = STAGES[config.stage](config)
        built.prepare()
        trainer = build(config, built, OneDevice(device, config.precision))
    trainer.generator = torch.Generator(device).manual_seed(config.seed)
    trainer.batches, batches.random = batches, DeviceRandom(trainer.generator)
    return trainer


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    kept = os.environ.get(HOME_VARIABLE)
    os.environ[HOME_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if kept is None:
            del os.environ[HOME_VARIABLE]
        else:
            os.environ[HOME_VARIABLE] = kept
