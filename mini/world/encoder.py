"""The VAE that the clips of the mini world are encoded with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.files.checkpoint import load_strict, read_checkpoint
from microcinema_core.networks.vae import FoldedVAE
from microcinema_core.vae_config import VAEConfig

EncodeMoments = Callable[[Tensor], tuple[Tensor, Tensor]]


def load_encoder(path: Path, *, dtype: str) -> EncodeMoments:
    """The encoder of a MicroCinema file that holds a VAE, in bf16 (float32 accumulation) or float32."""
    checkpoint = read_checkpoint(path)
    weights = checkpoint.part("vae")
    vae = FoldedVAE(VAEConfig.from_dict(checkpoint.configs["vae"]))
    load_strict(vae, weights, f"the VAE of {path.name}")
    vae = vae.float().eval().to(memory_format=torch.channels_last)
    low = dtype == "bf16"

    @torch.inference_mode()
    def encode(pictures: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            mean, std = vae.encode_moments(pictures.to(memory_format=torch.channels_last))
        return mean.float(), std.float()

    return encode


def encoder_hash(path: Path) -> str:
    """A hash of the encoder's tensors as float16: with another decoder, what was encoded is as good as before."""
    digest = hashlib.sha256()
    encoder = {k: t for k, t in read_checkpoint(path).part("vae").items() if k.startswith("encoder.")}
    for key, tensor in sorted(encoder.items()):
        digest.update(key.encode())
        digest.update(tensor.half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
