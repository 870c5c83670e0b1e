"""Where memory runs out: half as much at once, and on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..networks.vae import FoldedVAE
from .host import comfy


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def forget_unused() -> None:
    """Let go of memory that the last attempt left behind."""
    comfy.model_management.soft_empty_cache()


def in_halves(run: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Return `run(batch)`; where memory runs out, that of its halves, down to single pictures."""
    try:
        return run(batch)
    except RuntimeError as error:
        if batch.shape[0] == 1 or not is_out_of_memory(error):
            raise
    forget_unused()
    half = (batch.shape[0] + 1) // 2
    return torch.cat([in_halves(run, part) for part in batch.split(half)])


class HostVAE(FoldedVAE):
    """The autoencoder as the host's VAE calls it: as many pictures as the host thinks fit, half where they do not."""

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Pictures `b 3 h w` in [-1, 1] -> latents `b c h/8 w/8`."""
        return in_halves(lambda part: super(HostVAE, self).encode(part, generator=generator), x)

    def decode(self, z: Tensor) -> Tensor:
        """Latents `b c h w` -> pictures `b 3 8h 8w` in [-1, 1]."""
        return in_halves(super().decode, z)
