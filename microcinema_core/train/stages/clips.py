"""What the stages `base` and `tsr` share: the loss of eq. 5 with the Appearance Noise Prior of eq. 3.

The two differ in their frames, in the appearance latents that AppearNet sees, and in where their weights come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from ...appearnet import AppearNet
from ...checkpoint import Checkpoint, load_strict, read_checkpoint, write_checkpoint
from ...config import AppearNetConfig, UNetConfig
from ...data.paths import home_folder
from ...data.shards import ShardDataset
from ...layers import Maker, short_attention
from ...noise import GAMMA, LAMBDA, training_noise
from ...schedule import NoiseSchedule, Prediction, diffuse, training_target
from ...text import TextConfig, TextEncoder
from ...unet import UNet3D, is_temporal
from ...vae import FoldedVAE
from ...video_model import VideoModel
from ..config import TrainConfig, from_table
from ..latents import band_losses, draw_latents, load_vae, pick_captions
from ..sheets import grid
from ..stage import Batch, Parts

SHEET_CLIPS, SHEET_STEPS, SHEET_GUIDANCE = 6, 16, 3.0


@dataclass(frozen=True)
class ClipModel:
    """The [model] table. `image_file` holds text encoder and VAE; the rest describes inflation."""

    image_file: str
    lambda_: float = LAMBDA
    injected_norm: str = "frame"
    injection: str = "spade"
    hidden: int = 128
    spade_norms: str = "both"
    time_conditioned: bool = False
    text_conditioned: bool = False
    prediction: Prediction = "eps"


@dataclass(frozen=True)
class ClipLoss:
    """The [loss] table: how often the text is dropped, and separately the appearance (and lambda with it)."""

    drop_text: float = 0.1
    drop_appearance: float = 0.1


@dataclass
class Networks:
    """The video model, which is trained, and the frozen two."""

    video: VideoModel
    text: TextEncoder
    vae: FoldedVAE

    @classmethod
    def build(
        cls, model: ClipModel, unet: UNetConfig, appearnet: AppearNetConfig, image: Checkpoint
    ) -> Networks:
        """Trained networks at their constructors' weights, frozen ones from the image file."""
        text = TextEncoder(TextConfig.from_dict(image.configs["text"])).requires_grad_(False)
        load_strict(text, image.part("text"), f"the text encoder of {image.name}")
        make = Maker(attend=short_attention)
        video = VideoModel(UNet3D(unet, make), AppearNet(appearnet, make), model.lambda_, model.prediction)
        return cls(video, text.eval(), load_vae(image))


@dataclass(frozen=True)
class Role:
    """How base and TSR differ.

    reads: roles of the files that `init_from` may name.
    appearance: clips `b f c h w` -> what AppearNet sees, `b c h w` (one frame serves all) or `(b f) c h w`.
    frozen: the AppearNet parameters, by name, that stay as they are.
    configs: shapes of the two networks, from the [model] table and the file that training starts from.
    start: the two networks' weights at step 0, from that file and a seed.
    """

    name: str
    reads: tuple[str, ...]
    appearance: Callable[[Tensor], Tensor]
    frozen: Callable[[str], bool]
    configs: Callable[[ClipModel, Checkpoint], tuple[UNetConfig, AppearNetConfig]]
    start: Callable[[Networks, Checkpoint, int], None]


class ClipStage:
    """Noise (or v) prediction on encoded clips."""

    def __init__(
        self,
        role: Role,
        networks: Networks,
        model: ClipModel,
        objective: ClipLoss,
        train: ShardDataset,
        test: ShardDataset,
    ) -> None:
        self.role, self.networks, self.model, self.objective = role, networks, model, objective
        self.modules: Mapping[str, nn.Module] = {
            "unet": networks.video.unet,
            "appearnet": networks.video.appearnet,
        }
        self.dataset, self.test = train, test
        self.schedule = NoiseSchedule()
        self.empty = self.encode_text(train.empty_tokens[None])
        self.start: Callable[[Networks], None] = lambda networks: None

    def prepare(self) -> None:
        self.start(self.networks)
        if self.model.injection != "concat":
            self.networks.video.appearnet.get_buffer("empty_prompt").copy_(self.empty[0])

    def group_of(self, name: str) -> str | None:
        """The paper's two rates (section 4.1): spatial layers of the U-Net, and all that is new or injects."""
        if name.startswith("appearnet."):
            return None if self.role.frozen(name) else "injection"
        return "temporal" if is_temporal(name) else "spatial"

    @torch.no_grad()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """(b, 77) -> (b, 77, d)."""
        return self.networks.text(tokens.long())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Eq. 5: the mean squared error of the predicted noise lambda z_c + eps_n, or of the v of that noise."""
        z_0 = draw_latents(batch, generator)
        clips = z_0.shape[0]
        tokens = pick_captions(batch, self.dataset.empty_tokens, self.objective.drop_text, generator)
        context = self.encode_text(tokens)
        kept = (torch.rand(clips, generator=generator) >= self.objective.drop_appearance).float()
        appearance = self.role.appearance(z_0)
        z_c = rearrange(appearance, "(b f) c h w -> b f c h w", b=clips)
        eps_n = torch.randn(z_0.shape, generator=generator)
        eps = training_noise(eps_n, z_c, self.model.lambda_ * kept[:, None, None, None, None])
        t = torch.randint(0, len(self.schedule.alpha_bar), (clips,), generator=generator)
        alpha_bar = self.schedule.alpha_bar[t].float()[:, None, None, None, None]
        z_t = diffuse(z_0, eps, alpha_bar)
        video = self.networks.video
        injection = video.injection(appearance, t.float(), context, kept)
        predicted = video.predict(z_t, t.float(), context, injection)
        error = (predicted.float() - training_target(z_0, eps, alpha_bar, video.prediction)).square()
        by_clip = reduce(error, "b f c h w -> b", "mean")
        return by_clip.mean(), band_losses(by_clip, t, len(self.schedule.alpha_bar))

    def sample(
        self,
        z_0: Tensor,
        tokens: Tensor,
        *,
        steps: int,
        guidance_scale: float,
        seed: int = 0,
        gamma: float = GAMMA,
    ) -> Tensor:
        """Clips `b f c h w` sampled by DDIM from the appearance of given ones and their captions."""
        return self.networks.video.sample(
            self.role.appearance(z_0), self.encode_text(tokens), self.empty, frames=z_0.shape[1],
            steps=steps, guidance_scale=guidance_scale, seed=seed, gamma=gamma,
        )  # fmt: skip

    def sheet(self) -> Tensor:
        """Held-out clips in pairs of rows: the real frames, and frames sampled from their appearance and caption."""
        step = max(1, len(self.test) // SHEET_CLIPS)
        items = [self.test[i * step] for i in range(min(SHEET_CLIPS, len(self.test)))]
        real = torch.stack([item["mean"] for item in items])
        tokens = torch.stack([item["tokens"][0] for item in items])
        made = self.sample(real, tokens, steps=SHEET_STEPS, guidance_scale=SHEET_GUIDANCE)
        rows = rearrange(torch.stack([real, made], dim=1), "b two f c h w -> (b two f) c h w")
        return grid(
            self.networks.vae.decode(rows),
            columns=real.shape[1],
        )

    def export(self, path: Path, parts: Parts) -> None:
        index = self.dataset.index
        write_checkpoint(
            path,
            dict(parts),
            role=self.role.name,
            configs={
                "unet": self.networks.video.unet.config,
                "appearnet": self.networks.video.appearnet.config,
                "vae": self.networks.vae.config,  # its linear previews; the weights are the image file's
            },
            lambda_=self.model.lambda_,
            fps=min(index["fps"]),
            frames=index["frames"],
            prediction=self.networks.video.prediction,
            extra_metadata={"microcinema.training": json.dumps(asdict(self.model) | asdict(self.objective))},
        )


def own_configs(model: ClipModel, first: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
    """The shapes that a base or TSR file brings."""
    return UNetConfig.from_dict(first.configs["unet"]), AppearNetConfig.from_dict(first.configs["appearnet"])


def build_clips(role: Role, config: TrainConfig) -> ClipStage:
    """The stage of a role, from the file that `init_from` names."""
    model = from_table(ClipModel, config.model, "[model]")
    objective = from_table(ClipLoss, config.loss, "[loss]")
    first = read_checkpoint(home_folder() / config.init_from, expect_roles=role.reads)
    image = read_checkpoint(home_folder() / model.image_file, expect_roles=("image",))
    networks = Networks.build(model, *role.configs(model, first), image)
    train, test = ShardDataset(config.data_folder), ShardDataset(config.test_folder)
    stage = ClipStage(role, networks, model, objective, train, test)
    stage.start = lambda networks: role.start(networks, first, config.seed)
    return stage
