"""A tiny archive of the mini world, and tiny configs, for tests of training on one card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from devtools.check import tiny
from microcinema_core.config import END_TOKEN, START_TOKEN
from microcinema_core.files.checkpoint import write_checkpoint
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.vae import FoldedVAE
from mini.card import family
from mini.world import archive, caption_bank
from tests.mini.data_world import write_world


class Letters:
    """A tokenizer whose words have a token per letter."""

    def __init__(self, folder: Path) -> None:
        pass

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = [[START_TOKEN, *(ord(c) for c in text if c != " "), END_TOKEN] for text in texts]
        return torch.tensor(rows, dtype=torch.int32)


def write_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the tiny world's archive, with captions as letters, and return its path."""
    monkeypatch.setattr(caption_bank, "CaptionTokenizer", Letters)
    target = folder / "world.zip"
    archive.make(write_world(folder / "emoji"), Path(), target)
    return target


def write_start(folder: Path) -> Path:
    """Write an image file whose VAE is of the mini models' shape, at tiny size."""
    torch.manual_seed(0)
    vae, path = FoldedVAE(tiny.VAE), folder / "start.safetensors"
    parts = {"text": tiny.text_weights(), "vae": vae.state_dict()}
    write_checkpoint(path, parts, spec=ModelSpec("image"), configs={"text": tiny.TEXT, "vae": tiny.VAE})
    return path


def write_configs(folder: Path) -> Path:
    """Write the card's configs with tiny networks, and return their folder."""
    target = folder / "configs"
    target.mkdir()
    unet = {
        "model_channels": 32,
        "channel_mult": [1, 2],
        "transformer_depth": [1, 1],
        "context_dim": tiny.CONTEXT,
    }
    for name in family.SHARES:
        text = (family.CONFIGS / f"{name}.toml").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("unet =")]
        if "image" in name:
            fields = ", ".join(f"{key} = {json.dumps(value)}" for key, value in unet.items())
            lines.insert(lines.index("[model]") + 1, f"unet = {{ {fields} }}")
        lines.insert(lines.index("[log]") + 1, "every = 2")
        (target / f"{name}.toml").write_text(
            "\n".join(line for line in lines if line != "every = 20")
            .replace("hidden = 48", "hidden = 16")
            .replace("steps = 20", "steps = 2")
        )
    return target
