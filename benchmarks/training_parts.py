"""A training step of the mini model, the image model's for a floor, and the time that data takes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from devtools.run.home import ROOT
from microcinema_core.config import UNetConfig
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
    """An encoded set of noise, for where none was prepared."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(clips, FRAMES, CHANNELS, SIDE, SIDE, generator=generator).half()
    tokens = torch.full((clips, 4, 77), 49407, dtype=torch.int32)
    write_shard(folder / "00000.safetensors", {"mean": mean, "std": 0.1 * mean.abs(), "tokens": tokens})
    empty = [49406, *[49407] * 76]
    write_json(folder / INDEX, {"frames": FRAMES, "fps": [2.0], "shards": [clips], "empty_tokens": empty})
    return folder


def trainer_of(folder: Path, *, batch: int, dtype: torch.dtype, recompute: bool) -> Trainer:
    """The base stage as mini/configs/mini_base.toml has it, from the shipped weights."""
    config: TrainConfig = load(ROOT / "configs" / "mini_base.toml")
    weights = ROOT / "weights"
    changed = replace(
        config,
        precision=PRECISIONS[dtype],
        init_from=str(weights / "mini_base.safetensors"),
        data=DataTable(folder=str(folder), batch=batch),
        model={**config.model, "image_file": str(weights / "mini_image.safetensors"), "recompute": recompute},
    )
    stage = build_stage(changed)
    stage.prepare()
    return build(changed, stage)


def step_of(trainer: Trainer) -> Step:
    """Forward and backward pass of one batch, always the same, data and optimizer aside."""
    batch = trainer.processes.put(trainer.feed.next())

    def step() -> None:
        loss, _ = trainer.objective(batch, trainer.processes.draws(trainer.generator))
        loss.backward()
        for parameter in trainer.objective.parameters():
            parameter.grad = None

    return step


def floor_of(trainer: Trainer) -> Step:
    """The same of the image model inside, all of it trained, on as many pictures as the batch has frames."""
    video: Any = trainer.stage.networks.video  # type: ignore[attr-defined]
    config: UNetConfig = video.unet.config.as_2d()
    attend = next(m.attend for m in video.unet.modules() if hasattr(m, "attend"))
    device, mixed = trainer.processes.device, trainer.config.precision.endswith("-mixed")
    net: nn.Module = UNet3D(config, attend=attend, dtype=video.dtype, device=device)
    rows = trainer.config.data.batch * FRAMES
    x = torch.randn(rows, config.in_channels, SIDE, SIDE, dtype=video.dtype, device=device)
    times = torch.full((rows,), 500.0, device=device)
    context = torch.randn(rows, 77, config.context_dim, dtype=video.dtype, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.float16, enabled=mixed):
            answer = net(x, times, context)
        answer.float().square().mean().backward()
        for parameter in net.parameters():
            parameter.grad = None

    return step


def waiting(trainer: Trainer, steps: int) -> float:
    """Share of whole training steps, optimizer included, in which nothing happens but reading data."""
    waits: list[float] = []
    feed: Any = trainer.feed
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
