"""A small Stable Diffusion 1.x file, motion files of diffusers, clips, and configs that train on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import Tensor

from devtools.check import tiny
from devtools.check.crafter_files import UNET, write_crafter
from microcinema_core.train import video
from microcinema_core.train.config import parse
from microcinema_core.train.stages import build_stage
from microcinema_core.train.video import VideoStage
from tests.core.motion_oracles import adapter, image_unet
from tests.train.clip_world import table, write_clips

CONTEXT, FRAMES, RATE = 32, 3, 1e-3


def write_warm_home(home: Path) -> None:
    """sd.safetensors, motion.safetensors, pia.safetensors, and a set of clips."""
    save(home / "sd.safetensors", image_unet(CONTEXT).state_dict())
    save(home / "motion.safetensors", adapter(middle=False).state_dict())
    save(home / "pia.safetensors", adapter(middle=False, conv_in_channels=9).state_dict())
    write_clips(home / "data" / "mine", FRAMES, [2.0], channels=4, contexts=CONTEXT, side=(16, 8))


def write_video_models(home: Path) -> None:
    """sd2.safetensors, modelscope.safetensors in diffusers' layout, videocrafter2 and dynamicrafter_512 in theirs."""
    import diffusers

    shape: dict[str, Any] = {
        "block_out_channels": (64, 128, 128, 128), "layers_per_block": 1, "cross_attention_dim": CONTEXT
    }  # fmt: skip
    image = diffusers.UNet2DConditionModel(
        **shape, attention_head_dim=(1, 2, 2, 2), use_linear_projection=True
    )
    save(home / "sd2.safetensors", image.state_dict())
    save(home / "modelscope.safetensors", tiny.random_weights(diffusers.UNet3DConditionModel(**shape), 1))
    crafter = replace(UNET, context_dim=CONTEXT)
    write_crafter(home / "videocrafter2.safetensors", replace(crafter, image_context=0))
    write_crafter(home / "dynamicrafter_512.safetensors", crafter)


def save(path: Path, state: dict[str, Tensor], **metadata: str) -> None:
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata=metadata)


def config(motion: str = "motion.safetensors", *, stage: str = "base", **changes: Any) -> dict[str, Any]:
    optim = {
        "lr": RATE, "groups": {"temporal": 1.0, "injection": 1.0, "spatial": 0.1}, "max_steps": 1, "warmup_steps": 0,
        "decay": "none", "clip": 1e9,
    }  # fmt: skip
    model = {"motion_from": motion, **changes.pop("model", {})}
    given = {"init_from": "sd.safetensors", "data": {"folder": "mine", "batch": 2}, "optim": optim, **changes}
    loss = {"text_dropout": 0.0, "appearance_dropout": 0.0}
    return {**table(stage, model=model), "loss": loss, **given}


def prepared(given: dict[str, Any]) -> VideoStage:
    """Return the stage of a config, ready to train."""
    stage = build_stage(parse(given))
    assert isinstance(stage, VideoStage)
    stage.prepare()
    return stage


def in_warm_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `home` the data folder, with the files of `write_warm_home`, and sample sheets small."""
    monkeypatch.setenv("MICROCINEMA_HOME", str(home))
    monkeypatch.setattr(video, "SHEET_STEPS", 1)
    monkeypatch.setattr(video, "SHEET_CLIPS", 1)
    write_warm_home(home)
