"""Endless batches of latents and captions that are rendered and encoded on the device, and small sets of them on disk.

The small sets are what a stage opens: it takes frames, rates and the empty prompt from them, and shows them on its
sample sheets.
"""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from microcinema_core.data.shards import INDEX, shard_path, write_json, write_shard
from microcinema_core.networks.vae import FoldedVAE
from microcinema_core.train.batches import Batches
from microcinema_core.train.stage import Batch

from ..world.clips import FPS, FRAMES
from .draws import DeviceRandom
from .world import World

ENCODED = 2048
"""Pictures that are encoded at once."""
SHOWN = 24
"""Clips of a small set."""


class RenderedBatches(Batches):
    """Batches that are made as they are asked for.

    Args:
        source: what to render.
        vae: what encodes it, on the same device.
        batch: clips of a batch.
        random: the draws.
        dtype: precision of rendering's last step, the encoder.
    """

    def __init__(
        self,
        source: World,
        vae: FoldedVAE,
        batch: int,
        random: DeviceRandom,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.source, self.vae, self.batch, self.random, self.dtype = source, vae, batch, random, dtype
        self.position = 0

    @torch.no_grad()
    def next(self) -> Batch:
        """Return a batch: `mean` and `std` of the latents, `n f c h w`, and one caption each, `tokens`, `n 1 77`."""
        pixels, tokens = self.source.batch(self.batch, self.random)
        self.position += self.batch
        with torch.autocast(pixels.device.type, self.dtype, enabled=self.dtype != torch.float32):
            moments = [self.vae.encode_moments(part) for part in pixels.split(ENCODED)]
        mean, std = (_clips(torch.cat(values), self.batch) for values in zip(*moments, strict=True))
        return {"mean": mean, "std": std, "tokens": tokens[:, None]}


def _clips(latents: Tensor, count: int) -> Tensor:
    return rearrange(latents.float(), "(n f) c h w -> n f c h w", n=count)


def write_small_set(folder: Path, batches: RenderedBatches) -> None:
    """Write a batch as a set of clips that a stage can open.

    Args:
        folder: the set's folder.
        batches: its clips; `batch` of them are written.
    """
    item, role = batches.next(), batches.source.role
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        name: (value if name == "tokens" else value.half()).contiguous().cpu() for name, value in item.items()
    }
    write_shard(shard_path(folder, 0), kept)
    index = {
        "frames": FRAMES[role],
        "fps": list(FPS[role]),
        "shards": [batches.batch],
        "count": batches.batch,
        "empty_tokens": batches.source.captions.empty.tolist(),
    }
    write_json(folder / INDEX, index)
