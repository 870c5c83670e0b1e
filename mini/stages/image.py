"""Stage `image`: a 2D latent diffusion U-Net under a frozen text encoder, the "Stable Diffusion" of the small world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from microcinema_core.data.shards import ShardDataset
from microcinema_core.diffusion.ddim import ddim, guided
from microcinema_core.diffusion.schedule import (
    Denoiser,
    NoiseSchedule,
    Prediction,
    Terminal,
    denoiser,
    diffuse,
    training_target,
)
from microcinema_core.files.checkpoint import Checkpoint, load_strict, write_checkpoint
from microcinema_core.files.paths import home_folder
from microcinema_core.networks.layers import short_attention
from microcinema_core.networks.unet import UNet3D
from microcinema_core.train.config import TrainConfig
from microcinema_core.train.latents import (
    band_losses,
    draw_latents,
    load_text,
    load_vae,
    pick_captions,
    read_export,
    unet_config,
)
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.sheets import grid
from microcinema_core.train.stage import Batch, Parts, Sheet
from microcinema_core.train.tables import from_table

from .operations import Operations


@dataclass(frozen=True)
class ImageModelTable:
    """`vae`, `text`: exported files that hold them, relative to $MICROCINEMA_HOME. `unet` changes the mini shape."""

    vae: str = "runs/mini_vae/mini_vae.safetensors"
    text: str = "runs/mini_text/mini_text.safetensors"
    prediction: Prediction = "eps"
    terminal: Terminal = "sd"
    unet: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageLossTable:
    """Eq. 5 on single pictures. `guidance` and `steps` are of the sample sheet."""

    text_dropout: float = 0.1
    guidance: float = 4.0
    steps: int = 20


class ImageStage:
    """Noise (or v) prediction under SD's schedule; every picture is a clip of one frame."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: ShardDataset,
        test: ShardDataset,
        vae_file: Checkpoint,
        text_file: Checkpoint,
    ) -> None:
        model = from_table(ImageModelTable, config.model, "[model]")
        self.options = from_table(ImageLossTable, config.loss, "[loss]")
        self.config, self.dataset, self.test = config, dataset, test
        self.vae_file, self.vae = vae_file, load_vae(vae_file)
        self.text_file, self.text = text_file, load_text(text_file)
        self.unet_config = unet_config(model.unet).as_2d()
        self.unet = UNet3D(self.unet_config, operations=Operations, attend=short_attention)
        self.modules: Mapping[str, nn.Module] = {"unet": self.unet}
        self.schedule = NoiseSchedule.ending(model.terminal)
        self.alpha_bar = self.schedule.alpha_bar.float()
        self.empty = dataset.empty_tokens
        self.prediction, self.terminal = model.prediction, model.terminal

    def prepare(self) -> None:
        """The constructor's weights; or those of an exported file."""
        if self.config.init_from:
            file = read_export(home_folder() / self.config.init_from)
            load_strict(self.unet, file.part("unet"), f"the U-Net of {file.name}")

    def group_of(self, name: str) -> str | None:
        return name.split(".")[0]

    def to(self, device: torch.device) -> None:
        self.vae.to(device)
        self.text.to(device)
        self.alpha_bar, self.empty = self.alpha_bar.to(device), self.empty.to(device)

    def loss(self, batch: Batch, draws: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        z_0 = rearrange(draw_latents(batch, draws), "n f c h w -> (n f) c h w")
        tokens = pick_captions(batch["tokens"], self.empty, self.options.text_dropout, draws)
        steps = len(self.alpha_bar)
        t = draws.integers(steps, (len(z_0),))
        eps = draws.normal(tuple(z_0.shape))
        alpha_bar = self.alpha_bar[t, None, None, None]
        answer = self.network(self.text(tokens))(diffuse(z_0, eps, alpha_bar), t.float())
        target = training_target(z_0, eps, alpha_bar, self.prediction)
        losses = (answer - target).square().mean(dim=(1, 2, 3))
        return losses.mean(), band_losses(losses, t, steps)

    def network(self, context: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The U-Net as a function of (z_t, t), float32 outside."""

        def call(x: Tensor, timesteps: Tensor) -> Tensor:
            dtype = next(self.unet.parameters()).dtype
            return self.unet(x.to(dtype), timesteps, context.to(dtype)).float()

        return call

    def sheet(self) -> Sheet:
        """Twelve captions of known subjects, then twelve of unseen ones; the real pictures above the samples."""
        rows = [self._row(source) for source in (self.dataset, self.test)]
        return Sheet(grid(torch.cat(rows), columns=12).cpu())

    def _row(self, source: ShardDataset) -> Tensor:
        items = [source[k * len(source) // 12] for k in range(12)]
        device = self.alpha_bar.device
        tokens = torch.stack([item["tokens"][0] for item in items]).to(device)
        z_0 = torch.cat([item["mean"] for item in items]).float().to(device)
        noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(1)).to(device)
        with_text, without = (
            self._denoiser(tokens),
            self._denoiser(self.empty.expand_as(tokens)),
        )
        sample = ddim(
            guided(with_text, without, self.options.guidance),
            noise,
            steps=self.options.steps,
        )
        return self.vae.decode(torch.cat([z_0, sample]))

    def _denoiser(self, tokens: Tensor) -> Denoiser:
        return denoiser(self.network(self.text(tokens)), self.schedule, self.prediction)

    def export(self, path: Path, parts: Parts) -> None:
        write_checkpoint(
            path,
            {
                "unet": parts["unet"],
                "text": self.text_file.part("text"),
                "vae": self.vae_file.part("vae"),
            },
            role="image",
            configs={
                "unet": self.unet_config,
                "text": self.text_file.configs["text"],
                "vae": self.vae_file.configs["vae"],
            },
            lambda_=0.0,
            fps=0.0,
            frames=1,
            prediction=self.prediction,
            terminal=self.terminal,
        )


def build(config: TrainConfig) -> ImageStage:
    """Encoded pictures of both splits, the VAE that encoded them, and the text encoder."""
    model = from_table(ImageModelTable, config.model, "[model]")
    vae_file, text_file = (read_export(home_folder() / name) for name in (model.vae, model.text))
    return ImageStage(
        config, ShardDataset(config.data_folder), ShardDataset(config.test_folder), vae_file, text_file
    )
