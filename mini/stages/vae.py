"""Stage `vae`: the autoencoder, trained on pictures that are rendered on demand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from microcinema_core.config import VAEConfig
from microcinema_core.files.checkpoint import Checkpoint, load_strict, write_checkpoint
from microcinema_core.files.paths import home_folder
from microcinema_core.metrics.psnr import decibels
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.vae import FoldedVAE, fold_statistics
from microcinema_core.train.batches import CachedPictures
from microcinema_core.train.config import Range, TrainConfig, from_table
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.sheets import grid
from microcinema_core.train.stage import Batch, Items, Parts, Sheet
from microcinema_core.train.start_files import read_export

from ..world.emoji import emoji_folder
from ..world.pictures import PixelDataset

START_STD = 0.02
"""Standard deviation of the posterior at initialisation."""
NOISE_SPOTS = 4
"""Points along each side of a picture at which the strength of `latent_noise` is drawn."""


@dataclass(frozen=True)
class VAELoss:
    """The [loss] table, and the loss itself: a weighted sum.

    Attributes:
        l1, mse: weights of the absolute and squared pixel error.
        gradient: weight of the absolute error of pixel differences, horizontal and vertical.
        kl: weight of the KL divergence per latent element.
        latent_noise: largest standard deviation of noise added to latents before decoding, whose own is 1. It needs a
            frozen encoder. A diffusion model's latents are inexact; a decoder trained on noisy ones hides such errors.
            The strength varies within a picture, as those errors are larger where things move.
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
        """Return the loss and scalars to log.

        Args:
            picture: the reconstruction of x.
            x: pictures `n 3 h w` in [-1, 1].
            mean, std: the posterior, `n c h w`.
        """
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
    """Initialise the VAE as the best linear code of 8x8 patches: principal components with unit variance.

    The last convolutions of encoder and decoder are set to zero. `pictures` are `n 3 h w` in [-1, 1].
    """
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
    """Fit a linear map from latents to the mean colour of their patches by least squares.

    Args:
        latents: `n c h w`.
        pictures: `n 3 H W` in [-1, 1].
        side: pixels per latent, along each side.

    Returns:
        3 rows of c weights and a bias.
    """
    colours = torch.nn.functional.avg_pool2d(pictures, side).movedim(1, -1).flatten(0, -2)
    rows = latents.movedim(1, -1).flatten(0, -2)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    solution = torch.linalg.lstsq(rows, colours).solution
    return tuple(tuple(round(float(value), 5) for value in row) for row in solution.T)


def augment(pictures: Tensor, random: SharedRandom) -> Tensor:
    """Augment pictures `n 3 h w`: rotate by quarter turns, mirror and permute colours, at random."""
    numbers = random.integers(4, (len(pictures), 3)).tolist()
    turns = [
        p.rot90(quarter, (1, 2)).flip((2,) if mirror % 2 else ()).roll(colours % 3, 0)
        for p, (quarter, mirror, colours) in zip(pictures, numbers, strict=True)
    ]
    return torch.stack(turns)


def uneven_noise(like: Tensor, strongest: float, random: SharedRandom) -> Tensor:
    """Draw noise in the shape of latents `n c h w`.

    Its standard deviation varies smoothly within each picture, between 0 and at most `strongest`.
    """
    count, side = len(like), NOISE_SPOTS
    spots = random.uniform(count * side**2).view(count, 1, side, side) * random.uniform(count).view(
        -1, 1, 1, 1
    )
    strength = torch.nn.functional.interpolate(
        spots, size=like.shape[-2:], mode="bilinear", align_corners=True
    )
    return strongest * strength * random.normal(tuple(like.shape))


def take(items: Items, count: int) -> Tensor:
    """Return the first `count` pictures of a data set, or all if it has fewer, as a batch `n 3 h w`."""
    return torch.stack([torch.as_tensor(items[k]) for k in range(min(count, len(items)))])


class VAEStage:
    """The VAE stage: reconstruction of single pictures."""

    def __init__(self, config: TrainConfig, dataset: Items, test: Items) -> None:
        self.vae = FoldedVAE(from_table(VAEConfig, config.model, "[model]"))
        self.objective = from_table(VAELoss, config.loss, "[loss]")
        self.modules: Mapping[str, nn.Module] = {"vae": self.vae}
        self.dataset, self.test = dataset, test
        self.statistics_pictures = 256
        self.config = config
        # A group with factor 0 keeps its values to the bit, so data sets encoded with it stay valid.
        self.keeps_latents = config.optim.groups.get("encoder") == 0
        if self.objective.latent_noise and not self.keeps_latents:
            raise ValueError(
                f"loss.latent_noise is {self.objective.latent_noise:g} with an encoder that is trained, which could "
                "outgrow it; set optim.groups = { encoder = 0.0, decoder = 1.0 }, or latent_noise = 0"
            )

    def prepare(self) -> None:
        """Load the VAE of `init_from`, if given; otherwise initialise it as the best linear code."""
        if not self.config.init_from:
            start_from_components(self.vae, take(self.dataset, self.statistics_pictures))
            return
        file = self._first()
        load_strict(self.vae, file.part("vae"), f"the VAE of {file.name}")

    def _first(self) -> Checkpoint:
        return read_export(home_folder() / self.config.init_from)

    def group_of(self, name: str) -> str:
        """Return the learning-rate group of a parameter: "encoder" or "decoder"."""
        return name.split(".")[1]

    def to(self, device: torch.device) -> None:
        """Do nothing, as all networks are trained."""

    def loss(self, batch: Batch, random: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of a batch of pictures, augmented at random, and scalars to log."""
        x = augment(batch["pixels"], random)
        mean, std = self.vae.encode_moments(x.to(self.vae.encoder.conv_in.weight.dtype))
        latents = mean + std * random.normal(tuple(mean.shape)).to(mean.dtype)
        if self.objective.latent_noise:
            latents = latents + uneven_noise(latents, self.objective.latent_noise, random).to(latents.dtype)
        return self.objective(self.vae.decode(latents), x, mean, std)

    def sheet(self) -> Sheet:
        """Make a sample sheet: 24 held-out pictures, each beside its reconstruction."""
        x = take(self.test, 24)
        again = self.vae(x.to(self.vae.encoder.conv_in.weight)).float().cpu()
        return Sheet(grid(torch.stack([x, again], dim=1).flatten(0, 1), columns=8))

    @torch.no_grad()
    def export(self, path: Path, parts: Parts) -> None:
        """Write the VAE, with latents normalised per channel and a linear preview fitted.

        A frozen encoder is copied from `init_from`, and its latents are left as they are.
        """
        vae = FoldedVAE(self.vae.config)
        vae.load_state_dict(parts["vae"])
        if self.keeps_latents:  # at the working precision here, but exact in the file
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
        write_checkpoint(path, {"vae": vae.state_dict()}, spec=ModelSpec("image"), configs=configs)


def build(config: TrainConfig) -> VAEStage:
    """Build the stage on pictures rendered from the prepared emoji; errors as for `from_table`."""
    folder = emoji_folder(home_folder())
    count = config.data.items or 8192
    return VAEStage(
        config,
        CachedPictures(PixelDataset(folder, "train", length=count)),
        PixelDataset(folder, "validation"),
    )
