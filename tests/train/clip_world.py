"""Tiny files and encoded clips for tests of the clip stages, and configs that train on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from devtools.check.tiny import CONTEXT, write_family
from microcinema_core.config import END_TOKEN, START_TOKEN
from microcinema_core.data.shards import shard_path, write_json, write_shard

CLIPS = 6


def write_home(home: Path) -> None:
    """tiny_image, tiny_base and tiny_tsr.safetensors, and a set for base and for TSR."""
    (home / "files").mkdir()
    write_family(home / "files", dtype=torch.float32)
    for name, frames, fps in (("base", 3, [2.0]), ("tsr", 5, [8.0, 32.0])):
        write_clips(home / "data" / name, frames, fps)


def write_clips(
    folder: Path, frames: int, fps: list[float], *, channels: int = 8, side: tuple[int, int] = (8, 8),
    contexts: int = 0, vision: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """Write six clips of random latents; captions are tokens, or contexts of width `contexts`.

    `vision` is the shape of CLIP vision's features of each clip's picture, in sets with contexts.
    """
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.full((CLIPS, 2, 77), END_TOKEN, dtype=torch.int32)
    tokens[:, :, 0], tokens[:, 0, 1] = START_TOKEN, 320
    captions = {"tokens": tokens}
    if contexts:
        held = torch.randn(CLIPS * 2, 77, contexts, generator=generator).half()
        captions = {"text": held, "caption": torch.arange(CLIPS * 2).view(CLIPS, 2)}
        empty = {"text": torch.randn(1, 77, contexts, generator=generator)}
        if vision:
            captions["vision"] = torch.randn(CLIPS, *vision, generator=generator).half()
            empty["grey"] = torch.randn(vision, generator=generator).half()
        save_file(empty, folder / "empty.safetensors")
    mean = torch.randn(CLIPS, frames, channels, *side, generator=generator).half()
    write_shard(shard_path(folder, 0), {"mean": mean, **captions})
    tokens_of_none = [START_TOKEN] + [END_TOKEN] * 76
    write_json(
        folder / "index.json",
        {"frames": frames, "fps": fps, "shards": [CLIPS], "empty_tokens": tokens_of_none},
    )


def table(stage: str, **extra: Any) -> dict[str, Any]:
    """Return a config of two steps; `extra` replaces whole tables."""
    return {
        "stage": stage,
        "name": f"my_{stage}",
        "precision": "fp32",
        "init_from": "files/tiny_image.safetensors" if stage == "base" else "files/tiny_base.safetensors",
        "data": {"folder": stage, "test_folder": stage, "batch": 4},
        "model": {"image_file": "files/tiny_image.safetensors", "hidden": 16},
        "optim": {
            "lr": 1e-3,
            "groups": {"temporal": 1.0, "injection": 1.0, "spatial": 0.1},
            "max_steps": 2,
            "warmup_steps": 1,
            "decay": "none",
        },
        "log": {"every": 1, "sheet_minutes": 0, "export_minutes": 0, "checkpoint_minutes": 0},
        **extra,
    }


def to_toml(table: dict[str, Any]) -> str:
    """Return a config as TOML text, as a user writes it."""
    plain = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    tables = [
        "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in part.items())])
        for name, part in table.items()
        if isinstance(part, dict)
    ]
    return "\n".join([*plain, *tables]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


__all__ = ["CLIPS", "CONTEXT", "table", "to_toml", "write_clips", "write_home"]
