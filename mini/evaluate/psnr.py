"""python -m mini.evaluate.psnr FILE: reconstruction quality of a file's VAE on unseen emoji."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.files.paths import emoji_folder, home_folder
from microcinema_core.metrics.psnr import decibels
from microcinema_core.networks.vae import FoldedVAE
from microcinema_core.train.latents import load_vae, read_export
from microcinema_core.train.sheets import grid, save_picture

from ..world.pictures import PixelDataset


@torch.no_grad()
def reconstruction_psnr(vae: FoldedVAE, pictures: Tensor, *, batch: int = 16) -> dict[str, float]:
    """PSNR in dB of pictures (n, 3, h, w) in [-1, 1], clamped as a viewer sees them: mean over pictures, and pooled.

    Latents' mean and deviation are reported too; an exported VAE has about 0 and 1 in each channel.
    """
    errors, latents = [], []
    for x in pictures.split(batch):
        z = vae.encode(x)
        errors.append((vae.decode(z).clamp(-1, 1) - x).square().mean(dim=(1, 2, 3)))
        latents.append(z)
    error = torch.cat(errors)
    std, mean = torch.std_mean(torch.cat(latents), dim=(0, 2, 3))
    return {
        "psnr_mean": float(decibels(error).mean()),
        "psnr_pooled": float(decibels(error.mean())),
        "latent_mean_largest": float(mean.abs().max()),
        "latent_std_smallest": float(std.min()),
        "latent_std_largest": float(std.max()),
    }


def main() -> int:
    """Print one JSON object; optionally write a sheet of pictures beside their reconstructions."""
    parser = argparse.ArgumentParser(prog="python -m mini.evaluate.psnr", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    try:
        vae = load_vae(read_export(options.file))
        dataset = PixelDataset(emoji_folder(home_folder()), options.split, seed=1)
    except ValueError as error:
        logging.error("%s", error)
        return 1
    pictures = torch.stack([dataset[k] for k in range(options.count)])
    figures = reconstruction_psnr(vae, pictures)
    if options.sheet:
        pairs = torch.stack([pictures[:24], vae(pictures[:24])], dim=1).flatten(0, 1)
        save_picture(options.sheet, grid(pairs.detach(), columns=8))
    sys.stdout.write(json.dumps({"pictures": options.count, "split": options.split, **figures}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
