"""Recovery from running out of memory: the batch is halved and tried again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..networks.vae import FoldedVAE
from .host import comfy


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device, or the machine, has no memory left."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def stop_if_cancelled() -> None:
    """Raise the host's exception if the user cancelled the run."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def free_unused_memory() -> None:
    """Release the memory that a failed attempt left cached."""
    comfy.model_management.soft_empty_cache()


def halve_on_out_of_memory(run: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Return `run(batch)`, computed on halves of the batch where memory runs out, down to single images.

    Args:
        run: maps `b ...` to `b ...`, each item of the batch for itself.
        batch: its input.

    Raises:
        RuntimeError: another error, or a single image that does not fit.
    """
    try:
        return run(batch)
    except RuntimeError as error:
        if batch.shape[0] == 1 or not is_out_of_memory(error):
            raise
    free_unused_memory()
    half = (batch.shape[0] + 1) // 2
    return torch.cat([halve_on_out_of_memory(run, part) for part in batch.split(half)])


class HostVAE(FoldedVAE):
    """The autoencoder inside the host's VAE, which halves the host's batches where they do not fit in memory.

    Args:
        vae: a loaded autoencoder, whose layers it takes over.
    """

    def __init__(self, vae: FoldedVAE) -> None:
        super().__init__(vae.config, device="meta")
        self.encoder, self.decoder = vae.encoder, vae.decoder

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Encode images `b 3 h w` in [-1, 1] to latents `b c h/8 w/8`."""
        return halve_on_out_of_memory(lambda part: super(HostVAE, self).encode(part, generator=generator), x)

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents `b c h w` to images `b 3 (8 h) (8 w)`, not clamped to [-1, 1]."""
        return halve_on_out_of_memory(super().decode, z)
