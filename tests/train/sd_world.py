"""A tiny Stable Diffusion checkpoint, clips with encoded captions, and configs that train on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from devtools.check.tiny import unet_weights
from microcinema_core.config import UNetConfig
from microcinema_core.files.stable_diffusion import LDM_PREFIX
from microcinema_core.train import loop
from microcinema_core.train.config import parse
from microcinema_core.train.stages import build_stage
from microcinema_core.train.trainer import Trainer, build
from tests.train.clip_world import table, write_clips

SD = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=1,
    transformer_depth=(0, 1),
    context_dim=32,
).as_2d()
ALL = {"temporal": 1.0, "injection": 1.0, "spatial": 0.1}


def write_sd_home(home: Path) -> None:
    """sd.safetensors, a U-Net alone, and the set `mine`."""
    weights = {f"{LDM_PREFIX}{key}": tensor.half() for key, tensor in unet_weights(SD).items()}
    save_file(weights, home / "sd.safetensors")
    write_clips(home / "data" / "mine", 3, [2.0], channels=4, contexts=32)


def config(groups: dict[str, float], *, stage: str = "base", **extra: Any) -> dict[str, Any]:
    model = {"hidden": 16, **extra.pop("model", {})}
    data = {"folder": "mine", "batch": 2}
    optim = {"lr": 1e-2, "groups": groups, "max_steps": 2, "warmup_steps": 1, "decay": "none"}
    merged = {"init_from": "sd.safetensors", "data": data, "optim": optim, **extra}
    return {**table(stage, model=model), **merged}


def trained(**arguments: Any) -> Trainer:
    """One step of the base stage."""
    settings = parse(config(**arguments))
    torch.manual_seed(0)
    stage = build_stage(settings)
    stage.prepare()
    trainer = build(settings, stage)
    loop.train_step(trainer)
    return trainer
