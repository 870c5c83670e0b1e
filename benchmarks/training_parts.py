"""A training step of the mini base model, its baseline, and the time spent on reading data."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from devtools.run.home import ROOT
from microcinema_core.config import CONTEXT_LENGTH, END_TOKEN, START_TOKEN, UNetConfig
from microcinema_core.data.shards import INDEX, write_json, write_shard
from microcinema_core.networks.unet import UNet3D
from microcinema_core.train.config import DataTable, TrainConfig, load
from microcinema_core.train.stages import build_stage
from microcinema_core.train.step import train_step
from microcinema_core.train.trainer import Trainer, build

from .contenders import Step
from .timing import seconds

PRECISIONS = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float16: "fp16-mixed"}
FRAMES, CHANNELS, SIDE = 9, 8, 16


def write_random_set(folder: Path, clips: int) -> Path:
    """Write an encoded set of noise, for machines without a prepared one; return its folder."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(clips, FRAMES, CHANNELS, SIDE, SIDE, generator=generator).half()
    tokens = torch.full((clips, 4, CONTEXT_LENGTH), END_TOKEN, dtype=torch.int32)
    write_shard(folder / "00000.safetensors", {"mean": mean, "std": 0.1 * mean.abs(), "tokens": tokens})
    empty = [START_TOKEN, *[END_TOKEN] * (CONTEXT_LENGTH - 1)]
    write_json(folder / INDEX, {"frames": FRAMES, "fps": [2.0], "shards": [clips], "empty_tokens": empty})
    return folder


def trainer_of(folder: Path, *, batch: int, dtype: torch.dtype, checkpointing: bool) -> Trainer:
    """Build the base stage of mini/configs/mini_base.toml, initialised from the shipped weights."""
    config: TrainConfig = load(ROOT / "mini" / "configs" / "mini_base.toml")
    weights = ROOT / "weights"
    changed = replace(
        config,
        precision=PRECISIONS[dtype],
        init_from=str(weights / "mini_base.safetensors"),
        data=DataTable(folder=str(folder), batch=batch),
        model={
            **config.model,
            "image_file": str(weights / "mini_image.safetensors"),
            "gradient_checkpointing": checkpointing,
        },
    )
    stage = build_stage(changed)
    stage.prepare()
    return build(changed, stage)


def step_of(trainer: Trainer) -> Step:
    """Return the forward and backward pass of one fixed batch, without data loading and optimizer."""
    batch = trainer.processes.to_device(trainer.batches.next())

    def step() -> None:
        loss, _ = trainer.objective(batch, trainer.processes.shared_random(trainer.generator))
        loss.backward()
        for parameter in trainer.objective.parameters():
            parameter.grad = None

    return step


def floor_of(trainer: Trainer) -> Step:
    """Return the same for the image model, fully trained, on as many pictures as the batch has frames."""
    video: Any = trainer.stage.video  # type: ignore[attr-defined]
    config: UNetConfig = video.unet.config.as_2d()
    attend = next(m.attend for m in video.unet.modules() if hasattr(m, "attend"))
    device, mixed = trainer.processes.device, trainer.config.precision.endswith("-mixed")
    net: nn.Module = UNet3D(config, attend=attend, dtype=video.dtype, device=device)
    rows = trainer.config.data.batch * FRAMES
    x = torch.randn(rows, config.in_channels, SIDE, SIDE, dtype=video.dtype, device=device)
    times = torch.full((rows,), 500.0, device=device)
    context = torch.randn(rows, CONTEXT_LENGTH, config.context_dim, dtype=video.dtype, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.float16, enabled=mixed):
            answer = net(x, times, context)
        answer.float().square().mean().backward()
        for parameter in net.parameters():
            parameter.grad = None

    return step


def waiting(trainer: Trainer, steps: int) -> float:
    """Return the share of whole training steps, optimizer included, that is spent on reading data."""
    waits: list[float] = []
    feed: Any = trainer.batches
    read = feed.next

    def timed() -> Any:
        started = time.perf_counter()
        batch = read()
        waits.append(time.perf_counter() - started)
        return batch

    feed.next = timed
    try:
        whole = seconds(lambda: [train_step(trainer) for _ in range(steps)], trainer.processes.device.type)
    finally:
        del feed.next
    return sum(waits) / whole
