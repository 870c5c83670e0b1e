"""Stage `vae`: the autoencoder, on pictures rendered on the fly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from microcinema_core.files.checkpoint import Checkpoint, load_strict, write_checkpoint
from microcinema_core.files.paths import emoji_folder, home_folder
from microcinema_core.metrics.psnr import decibels
from microcinema_core.networks.vae import FoldedVAE, fold_statistics
from microcinema_core.train.batches import CachedPictures
from microcinema_core.train.config import TrainConfig
from microcinema_core.train.latents import read_export
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.sheets import grid
from microcinema_core.train.stage import Batch, Items, Parts, Sheet
from microcinema_core.train.tables import Range, from_table
from microcinema_core.vae_config import VAEConfig

from ..world.pictures import PixelDataset

START_STD = 0.02
NOISE_SPOTS = 4
"""Places along a side of a picture between which the strength of `latent_noise` changes."""


@dataclass(frozen=True)
class VAELoss:
    """Weights of the terms: absolute and squared error of pixels, error of pixel gradients, KL per latent element.

    latent_noise: the largest standard deviation of noise that is added to latents before they are decoded, for an
        encoder of rate 0, whose latents' own deviation is 1. A model's latents are never exact: a decoder that knows
        such errors does not draw them. How strong the noise is differs within a picture, as errors do, which are
        large where things move.
    """

    RANGES: ClassVar[dict[str, Range]] = {"latent_noise": (0, math.inf)}

    l1: float = 1.0
    mse: float = 10.0
    gradient: float = 0.5
    kl: float = 1e-6
    latent_noise: float = 0.0

    def __call__(
        self, picture: Tensor, x: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        error = picture.float() - x
        squared = error.square().mean()
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        mean, std = mean.float(), std.float()
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
        loss = self.l1 * error.abs().mean() + self.mse * squared + self.gradient * edges + self.kl * kl
        return loss, {
            "psnr": decibels(squared.detach()),
            "kl": kl.detach(),
            "std": std.detach().mean(),
        }


@torch.no_grad()
def start_from_components(vae: FoldedVAE, pictures: Tensor) -> None:
    """Make the VAE the best linear code of 8x8 patches (principal components, unit variance), convolutions silent."""
    side = vae.config.downscale
    patches = torch.nn.functional.pixel_unshuffle(pictures, side).movedim(1, -1).flatten(0, -2).double()
    centre = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - centre).T))
    count = vae.config.latent_channels
    deviation, basis = values[-count:].flip(0).sqrt(), vectors[:, -count:].flip(1)
    encode, decode = vae.encoder.linear, vae.decoder.linear
    encode.weight.zero_()
    encode.weight[:count, :, 0, 0] = (basis / deviation).T
    encode.bias[:count] = -(centre @ basis) / deviation
    encode.bias[count:] = 2 * torch.tensor(START_STD).log()
    decode.weight[:, :, 0, 0] = basis * deviation
    decode.bias.copy_(centre)
    for layer in (vae.encoder.conv_out, vae.decoder.conv_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def fit_latent_rgb(latents: Tensor, pictures: Tensor, side: int) -> tuple[tuple[float, ...], ...]:
    """Least squares from latents (n, c, h, w) to the mean colour of their patches: 3 rows of c weights and a bias."""
    colours = torch.nn.functional.avg_pool2d(pictures, side).movedim(1, -1).flatten(0, -2)
    rows = latents.movedim(1, -1).flatten(0, -2)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    solution = torch.linalg.lstsq(rows, colours).solution
    return tuple(tuple(round(float(value), 5) for value in row) for row in solution.T)


def turned(pictures: Tensor, draws: SharedRandom) -> Tensor:
    """Each picture turned, mirrored and with its colour channels exchanged at random."""
    numbers = draws.integers(4, (len(pictures), 3)).tolist()
    turns = [
        p.rot90(quarter, (1, 2)).flip((2,) if mirror % 2 else ()).roll(colours % 3, 0)
        for p, (quarter, mirror, colours) in zip(pictures, numbers, strict=True)
    ]
    return torch.stack(turns)


def uneven_noise(like: Tensor, strongest: float, draws: SharedRandom) -> Tensor:
    """Noise for latents `n c h w`; its deviation changes smoothly within each, from 0 to at most `strongest`."""
    count, side = len(like), NOISE_SPOTS
    spots = draws.uniform(count * side**2).view(count, 1, side, side) * draws.uniform(count).view(-1, 1, 1, 1)
    strength = torch.nn.functional.interpolate(
        spots, size=like.shape[-2:], mode="bilinear", align_corners=True
    )
    return strongest * strength * draws.normal(tuple(like.shape))


def take(items: Items, count: int) -> Tensor:
    """The first pictures of a set as a batch."""
    return torch.stack([torch.as_tensor(items[k]) for k in range(min(count, len(items)))])


class VAEStage:
    """Reconstruction of single pictures."""

    def __init__(self, config: TrainConfig, dataset: Items, test: Items) -> None:
        self.vae = FoldedVAE(from_table(VAEConfig, config.model, "[model]"))
        self.objective = from_table(VAELoss, config.loss, "[loss]")
        self.modules: Mapping[str, nn.Module] = {"vae": self.vae}
        self.dataset, self.test = dataset, test
        self.statistics_pictures = 256
        self.config = config
        # An encoder of rate 0 stays to the bit, and with it everything encoded by it.
        self.keeps_latents = config.optim.groups.get("encoder") == 0
        if self.objective.latent_noise and not self.keeps_latents:
            raise ValueError(
                f"loss.latent_noise is {self.objective.latent_noise:g} with an encoder that is trained, which could "
                "outgrow it; set optim.groups = { encoder = 0.0, decoder = 1.0 }, or latent_noise = 0"
            )

    def prepare(self) -> None:
        """The best linear code; or the VAE of an exported file."""
        if not self.config.init_from:
            start_from_components(self.vae, take(self.dataset, self.statistics_pictures))
            return
        file = self._first()
        load_strict(self.vae, file.part("vae"), f"the VAE of {file.name}")

    def _first(self) -> Checkpoint:
        return read_export(home_folder() / self.config.init_from)

    def group_of(self, name: str) -> str:
        """`encoder` or `decoder`."""
        return name.split(".")[1]

    def to(self, device: torch.device) -> None:
        """Everything here is trained."""

    def loss(self, batch: Batch, draws: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        x = turned(batch["pixels"], draws)
        mean, std = self.vae.encode_moments(x.to(self.vae.encoder.conv_in.weight.dtype))
        latents = mean + std * draws.normal(tuple(mean.shape)).to(mean.dtype)
        if self.objective.latent_noise:
            latents = latents + uneven_noise(latents, self.objective.latent_noise, draws).to(latents.dtype)
        return self.objective(self.vae.decode(latents), x, mean, std)

    def sheet(self) -> Sheet:
        x = take(self.test, 24)
        again = self.vae(x.to(self.vae.encoder.conv_in.weight)).float().cpu()
        return Sheet(grid(torch.stack([x, again], dim=1).flatten(0, 1), columns=8))

    @torch.no_grad()
    def export(self, path: Path, parts: Parts) -> None:
        vae = FoldedVAE(self.vae.config)
        vae.load_state_dict(parts["vae"])
        if self.keeps_latents:  # a frozen encoder lives at the working precision here; the file has it whole
            theirs = self._first().part("vae")
            vae.encoder.load_state_dict(
                {k.removeprefix("encoder."): v for k, v in theirs.items() if k.startswith("encoder.")}
            )
        pictures = take(self.dataset, self.statistics_pictures)
        latents = torch.cat([vae.encode(part) for part in pictures.split(32)])
        if not self.keeps_latents:
            std, mean = torch.std_mean(latents, dim=(0, 2, 3))
            fold_statistics(vae, mean, std)
            latents = (latents - mean[:, None, None]) / std[:, None, None]
        rgb = fit_latent_rgb(latents, pictures, vae.config.downscale)
        configs = {"vae": {**vae.config.to_dict(), "latent_rgb": rgb}}
        write_checkpoint(
            path, {"vae": vae.state_dict()}, role="image", configs=configs, lambda_=0.0, fps=0.0, frames=1
        )


def build(config: TrainConfig) -> VAEStage:
    """Pictures of both splits from the prepared emoji."""
    folder = emoji_folder(home_folder())
    count = config.data.items or 8192
    return VAEStage(
        config, CachedPictures(PixelDataset(folder, "train", length=count)), PixelDataset(folder, "test")
    )
