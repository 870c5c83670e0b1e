"""What the diffusion stages share: draws from encoded clips, captions with dropout, losses by timestep band, files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..config import MINI, UNetConfig
from ..data.shards import ShardDataset
from ..files.checkpoint import Checkpoint, load_strict, read_checkpoint
from ..networks.text import TextConfig, TextEncoder
from ..networks.vae import FoldedVAE
from ..vae_config import VAEConfig
from .shared_random import SharedRandom
from .stage import Batch

BANDS = 4


def draw_latents(batch: Batch, draws: SharedRandom) -> Tensor:
    """z_0 of the clips, (n, f, c, h, w) float32: a draw from the posterior, or its mean where no std is stored."""
    mean = batch["mean"]
    if "std" not in batch:
        return mean
    return mean + batch["std"] * draws.normal(tuple(mean.shape))


def pick_captions(captions: Tensor, empty: Tensor, dropout: float, draws: SharedRandom) -> Tensor:
    """One of each clip's captions (n, k, ...) at random, tokens or encoded; `empty` with probability `dropout`."""
    count, choices = captions.shape[:2]
    picked = draws.integers(choices, (count,))
    chosen = captions[torch.arange(count, device=captions.device), picked]
    dropped = draws.uniform(count) < dropout
    return torch.where(dropped.view(-1, *[1] * empty.ndim), empty.to(chosen.dtype), chosen)


def band_losses(losses: Tensor, timesteps: Tensor, steps: int) -> dict[str, Tensor]:
    """Mean loss of the samples (n,) within each quarter of the noise schedule; empty quarters are left out."""
    bands = (timesteps.long() * BANDS // steps).clamp(max=BANDS - 1)
    return {
        f"loss/band{k}": losses[bands == k].detach().mean() for k in range(BANDS) if bool((bands == k).any())
    }


def all_tokens(dataset: ShardDataset) -> Tensor:
    """Every caption token of a set and of the empty prompt, flat."""
    shards = range(len(dataset.index["shards"]))
    words = [torch.unique(_tensor(dataset.path(number), "tokens")) for number in shards]
    return torch.cat([*words, dataset.empty_tokens])


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def unet_config(table: Mapping[str, Any]) -> UNetConfig:
    """The mini family's U-Net with the changes of a config table."""
    return UNetConfig.from_dict({**MINI.to_dict(), **table})


def load_vae(file: Checkpoint) -> FoldedVAE:
    """The VAE of an exported file, float32, frozen."""
    vae = FoldedVAE(VAEConfig.from_dict(file.configs["vae"]))
    load_strict(vae, {key: t.float() for key, t in file.part("vae").items()}, f"the VAE of {file.name}")
    return vae.eval().requires_grad_(False)


def load_text(file: Checkpoint) -> TextEncoder:
    """The text encoder of an exported file, float32, frozen."""
    text = TextEncoder(TextConfig.from_dict(file.configs["text"]))
    load_strict(text, file.part("text"), f"the text encoder of {file.name}")
    return text.eval().requires_grad_(False)


def read_export(path: Path) -> Checkpoint:
    """An exported file that a config names; ValueError says what to train first."""
    if not path.is_file():
        raise not_exported(path)
    return read_checkpoint(path)


def not_exported(path: Path) -> ValueError:
    """What a config names that is not there (yet)."""
    return ValueError(f"{path} is missing; train the stage that exports it first, or name another file")
