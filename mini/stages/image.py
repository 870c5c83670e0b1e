"""Stage `image`: a 2D latent diffusion U-Net with a frozen text encoder.

It is to the mini models what Stable Diffusion is to the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from microcinema_core.config import Prediction, UNetConfig
from microcinema_core.data.shards import ShardDataset
from microcinema_core.diffusion.image_model import ImageModel
from microcinema_core.diffusion.schedule import diffuse, training_target
from microcinema_core.files.checkpoint import Checkpoint, load_strict, write_checkpoint
from microcinema_core.files.load_networks import load_text_encoder, load_vae
from microcinema_core.files.paths import home_folder
from microcinema_core.model_spec import ModelSpec, SamplerDefaults
from microcinema_core.networks.layers import attention, unfused_attention
from microcinema_core.networks.unet import UNet3D
from microcinema_core.train.batches import band_losses, draw_latents, pick_captions
from microcinema_core.train.config import TrainConfig, from_table
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.sheets import grid
from microcinema_core.train.stage import Batch, Parts, Sheet
from microcinema_core.train.start_files import read_export
from microcinema_core.train.video_config import schedule_end

MINI = UNetConfig(
    in_channels=8,
    out_channels=8,
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=1,
    transformer_depth=(1, 1),
    context_dim=128,
    num_head_channels=32,
)
"""The U-Net of the mini family: 4.3 M parameters on 16x16 latents of 8 channels."""


@dataclass(frozen=True)
class ImageModelTable:
    """The [model] table.

    Attributes:
        vae, text: exported files of VAE and text encoder, absolute or relative to $MICROCINEMA_HOME.
        prediction: what the U-Net predicts, "eps" or "v".
        zero_terminal_snr: whether the noise schedule ends in pure noise, which needs v-prediction.
        unet: fields of `UNetConfig` that differ from `MINI`.
    """

    vae: str = "runs/mini_vae/mini_vae.safetensors"
    text: str = "runs/mini_text/mini_text.safetensors"
    prediction: Prediction = "eps"
    zero_terminal_snr: bool | str = False
    unet: dict[str, Any] = field(default_factory=dict)

    ALIASES: ClassVar[dict[str, str]] = {"terminal": "zero_terminal_snr"}

    def __post_init__(self) -> None:
        if schedule_end(self.zero_terminal_snr) == "auto":
            raise ValueError(
                "model.zero_terminal_snr is 'auto', but an image model starts from no file; it is true or false"
            )

    def spec(self) -> ModelSpec:
        """Return the spec of the trained weights."""
        zero_terminal_snr = schedule_end(self.zero_terminal_snr) is True
        return ModelSpec("image", prediction=self.prediction, zero_terminal_snr=zero_terminal_snr)


@dataclass(frozen=True)
class ImageLossTable:
    """The [loss] table.

    Attributes:
        text_dropout: probability of dropping the text.
        guidance_scale, steps: guidance scale and DDIM steps of sample sheets.
    """

    ALIASES: ClassVar[dict[str, str]] = {"guidance": "guidance_scale"}

    text_dropout: float = 0.1
    guidance_scale: float = 4.0
    steps: int = 20


class GroupNorm(nn.GroupNorm):
    """A group norm for channels-last tensors on a CPU.

    torch's kernel is ten times slower on channels-last tensors than on contiguous ones, unlike its convolutions. So
    this normalises a contiguous copy and returns it as channels-last.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `n c ...`; a result `n c h w` is channels-last."""
        y = super().forward(x.contiguous())
        return y.contiguous(memory_format=torch.channels_last) if y.ndim == 4 else y


class Operations:
    """The namespace of layer classes for training the U-Net on a CPU."""

    Linear = nn.Linear
    Conv1d = nn.Conv1d
    Conv2d = nn.Conv2d
    Embedding = nn.Embedding
    LayerNorm = nn.LayerNorm
    GroupNorm = GroupNorm


class ImageStage:
    """The image stage: prediction of noise or v on encoded pictures, each a clip of one frame."""

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
        self.text_file, self.text = text_file, load_text_encoder(text_file)
        self.spec = replace(model.spec(), sampling=SamplerDefaults(**config.sampling))
        self.unet_config = UNetConfig.from_dict({**MINI.to_dict(), **model.unet}).as_2d()
        gpu = torch.cuda.is_available()
        self.unet = UNet3D(
            self.unet_config,
            operations=nn if gpu else Operations,
            attend=attention if gpu else unfused_attention,
        )
        self.modules: Mapping[str, nn.Module] = {"unet": self.unet}
        self.model = ImageModel(self.unet, self.spec)
        self.alpha_bar = self.model.schedule.alpha_bar.float()
        self.empty = dataset.empty_tokens

    def prepare(self) -> None:
        """Load the weights of `init_from`, if given; otherwise keep the constructors'."""
        if self.config.init_from:
            file = read_export(home_folder() / self.config.init_from)
            load_strict(self.unet, file.part("unet"), f"the U-Net of {file.name}")

    def group_of(self, name: str) -> str | None:
        """Return the learning-rate group of all parameters, "unet"."""
        return name.split(".")[0]

    def to(self, device: torch.device) -> None:
        """Move the frozen networks and the constants to a device."""
        self.vae.to(device)
        self.text.to(device)
        self.alpha_bar, self.empty = self.alpha_bar.to(device), self.empty.to(device)

    def loss(self, batch: Batch, random: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return Eq. 5's loss of a batch of single frames, and the losses by quarter of the noise schedule."""
        z_0 = rearrange(draw_latents(batch, random), "n f c h w -> (n f) c h w")
        tokens, _ = pick_captions(batch["tokens"], self.empty, self.options.text_dropout, random)
        steps = len(self.alpha_bar)
        t = random.integers(steps, (len(z_0),))
        eps = random.normal(tuple(z_0.shape))
        alpha_bar = self.alpha_bar[t, None, None, None]
        output = self.network(self.text(tokens))(diffuse(z_0, eps, alpha_bar), t.float())
        target = training_target(z_0, eps, alpha_bar, self.spec.prediction)
        losses = (output - target).square().mean(dim=(1, 2, 3))
        return losses.mean(), band_losses(losses, t, steps)

    def network(self, context: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the U-Net as a function of `n c h w` latents and timesteps (n,), float32 at its interface."""

        def call(x: Tensor, timesteps: Tensor) -> Tensor:
            dtype = next(self.unet.parameters()).dtype
            return self.unet(x.to(dtype), timesteps, context.to(dtype)).float()

        return call

    def sheet(self) -> Sheet:
        """Make a sample sheet: real pictures above samples, 12 of training subjects, then 12 of held-out ones."""
        rows = [self._row(source) for source in (self.dataset, self.test)]
        return Sheet(grid(torch.cat(rows), columns=12).cpu())

    def _row(self, source: ShardDataset) -> Tensor:
        items = [source[k * len(source) // 12] for k in range(12)]
        device = self.alpha_bar.device
        tokens = torch.stack([item["tokens"][0] for item in items]).to(device)
        z_0 = torch.cat([item["mean"] for item in items]).float().to(device)
        noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(1)).to(device)
        sample = self.model.sample(
            self.text(tokens),
            self.text(self.empty[None]),
            noise,
            steps=self.options.steps,
            guidance_scale=self.options.guidance_scale,
        )
        return self.vae.decode(torch.cat([z_0, sample]))

    def export(self, path: Path, parts: Parts) -> None:
        """Write the image model: U-Net, text encoder and VAE in one file."""
        write_checkpoint(
            path,
            {
                "unet": parts["unet"],
                "text": self.text_file.part("text"),
                "vae": self.vae_file.part("vae"),
            },
            spec=self.spec,
            configs={
                "unet": self.unet_config,
                "text": self.text_file.configs["text"],
                "vae": self.vae_file.configs["vae"],
            },
        )


def build(config: TrainConfig) -> ImageStage:
    """Build the stage from its config; errors as for `from_table` and `read_export`."""
    model = from_table(ImageModelTable, config.model, "[model]")
    vae_file, text_file = (read_export(home_folder() / name) for name in (model.vae, model.text))
    return ImageStage(
        config, ShardDataset(config.data_folder), ShardDataset(config.test_folder), vae_file, text_file
    )
