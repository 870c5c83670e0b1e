"""Section `vae`: reconstruction of unseen pictures, beside the best linear code with as many channels.

`python -m mini.evaluate.vae FILE` measures the VAE of any MicroCinema file and prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.files.load_networks import load_vae
from microcinema_core.files.paths import home_folder
from microcinema_core.metrics.psnr import decibels
from microcinema_core.networks.vae import FoldedVAE
from microcinema_core.train.sheets import grid, save_picture
from microcinema_core.train.start_files import read_export

from ..stages.vae import start_from_components, take
from ..world.emoji import emoji_folder
from ..world.encode import HELD_OUT
from ..world.pictures import PixelDataset
from .evaluation_context import EvaluationContext
from .results import ResultRow

PICTURES = 256
CODE_PICTURES = 1024
SHEET_PICTURES = 24


@torch.no_grad()
def reconstruction_psnr(vae: FoldedVAE, pictures: Tensor, *, batch: int = 16) -> dict[str, float]:
    """Measure the PSNR in dB of reconstructed pictures `n 3 h w` in [-1, 1], clamped for display.

    Returns:
        The mean PSNR over pictures, the PSNR of their mean error (`pooled`), and the extremes of the latents' mean
        and standard deviation over channels. An exported VAE has about 0 and 1 in each channel.
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


def measure_vae(evaluation: EvaluationContext) -> list[ResultRow]:
    """Measure PSNR on unseen pictures: the mean over pictures, and in brackets that of the pooled error."""
    unseen = torch.stack(
        [PixelDataset(evaluation.emoji, evaluation.split, seed=1)[k] for k in range(PICTURES)]
    )
    vae = evaluation.pipeline.vae
    code = FoldedVAE(vae.config)
    start_from_components(code, take(PixelDataset(evaluation.emoji, "train", seed=1), CODE_PICTURES))
    ours, linear = (reconstruction_psnr(one, unseen) for one in (vae, code))
    channels = code.config.latent_channels
    return [
        ResultRow(
            f"VAE: PSNR of {PICTURES} unseen pictures",
            f"{ours['psnr_mean']:.1f} dB (pooled {ours['psnr_pooled']:.1f})",
            f"linear code of {channels} channels: {linear['psnr_mean']:.1f} dB "
            f"(pooled {linear['psnr_pooled']:.1f})",
            ">= 28.9 dB",
            ours["psnr_mean"] >= 28.9,
        )
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _options(arguments)
    try:
        vae = load_vae(read_export(options.file))
        dataset = PixelDataset(emoji_folder(home_folder()), options.split, seed=1)
    except ValueError as error:
        logging.error("%s", error)
        return 1
    pictures = torch.stack([dataset[k] for k in range(options.count)])
    measured = reconstruction_psnr(vae, pictures)
    if options.sheet:
        _write_sheet(options.sheet, vae, pictures[:SHEET_PICTURES])
    sys.stdout.write(json.dumps({"pictures": options.count, "split": options.split, **measured}) + "\n")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mini.evaluate.vae",
        description="Measure the reconstruction quality of a file's VAE on pictures of the mini world.",
    )
    parser.add_argument("file", type=Path, help="a MicroCinema file that holds a VAE")
    parser.add_argument(
        "--split", choices=("train", *HELD_OUT), default="validation", help="default: %(default)s"
    )
    parser.add_argument("--count", type=int, default=256, help="pictures; default: %(default)s")
    parser.add_argument(
        "--sheet", type=Path, help=f"write the first {SHEET_PICTURES} pictures beside their reconstructions"
    )
    return parser.parse_args(arguments)


def _write_sheet(path: Path, vae: FoldedVAE, pictures: Tensor) -> None:
    pairs = torch.stack([pictures, vae(pictures)], dim=1).flatten(0, 1)
    save_picture(path, grid(pairs.detach(), columns=8))


if __name__ == "__main__":
    sys.exit(main())
