"""Row `VAE`: reconstruction of unseen pictures, beside the best linear code of as many channels."""

from __future__ import annotations

import torch

from microcinema_core.networks.vae import FoldedVAE

from ..stages.vae import start_from_components, take
from ..world.pictures import PixelDataset
from .evaluation_context import EvaluationContext
from .psnr import reconstruction_psnr
from .rows import Row

PICTURES = 256
CODE_PICTURES = 1024


def measure_vae(lab: EvaluationContext) -> list[Row]:
    """PSNR is the mean over pictures; that of all pixels together stands behind it."""
    unseen = torch.stack([PixelDataset(lab.emoji, "test", seed=1)[k] for k in range(PICTURES)])
    code = FoldedVAE(lab.family.vae.config)
    start_from_components(code, take(PixelDataset(lab.emoji, "train", seed=1), CODE_PICTURES))
    ours, linear = (reconstruction_psnr(vae, unseen) for vae in (lab.family.vae, code))
    channels = code.config.latent_channels
    return [
        Row(
            f"VAE, PSNR of {PICTURES} unseen pictures",
            f"{ours['psnr_mean']:.1f} dB (pooled {ours['psnr_pooled']:.1f})",
            f"linear code of {channels} channels: {linear['psnr_mean']:.1f} dB "
            f"(pooled {linear['psnr_pooled']:.1f})",
            ">= 28.9 dB",
            ours["psnr_mean"] >= 28.9,
        )
    ]
