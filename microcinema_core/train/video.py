"""What the stages `base` and `tsr` share: the loss of eq. 5 with the Appearance Noise Prior of eq. 3.

The two differ in their frames, in the appearance latents that AppearNet sees, and in where their weights come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from ..config import AppearNetConfig, UNetConfig
from ..diffusion.noise import GAMMA, training_noise
from ..diffusion.schedule import Prediction, diffuse, training_target
from ..files.checkpoint import Checkpoint, write_checkpoint
from ..files.paths import home_folder
from ..networks.unet import is_temporal
from ..networks.vae import FoldedVAE
from .config import TrainConfig
from .latents import band_losses, draw_latents, pick_captions
from .lora import LoRA, merged, write_lora
from .networks import ModelTable, Networks, read_first
from .sets import VideoSet, alike, captions_of, empty_caption, open_set
from .shared_random import SharedRandom
from .sheets import grid
from .stage import Batch, Parts, Sheet
from .tables import Range, from_table

SHEET_CLIPS, SHEET_STEPS, SHEET_GUIDANCE = 6, 16, 3.0
SHEET_DECODES = 256
"""Pictures decoded at once."""
FINAL = 20
"""The part of the schedule that `final_share` draws from: one twentieth."""


@dataclass(frozen=True)
class LossTable:
    """The [loss] table.

    drop_text, drop_appearance: how often the text is dropped, and separately the appearance (and lambda with it).
    min_snr: gamma of min-SNR weighting (Hang et al. 2023, 5 is usual); 0 is the paper's plain loss.
    noise_offset: standard deviation of noise that is one value per clip and channel; 0 is none.
    final_share: how often a clip's timestep is drawn from the last twentieth of the schedule alone; 0 is the paper's
        uniform draw. Nine small frames show where a subject goes through nearly any noise, so that a text's direction
        is only asked for at the very end; a uniform draw is seldom there.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("drop_text", "drop_appearance", "noise_offset", "final_share"), (0, 1)),
        "min_snr": (0, math.inf),
    }

    drop_text: float = 0.1
    drop_appearance: float = 0.1
    min_snr: float = 0.0
    noise_offset: float = 0.0
    final_share: float = 0.0


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
    configs: Callable[[ModelTable, Checkpoint], tuple[UNetConfig, AppearNetConfig]]
    start: Callable[[Networks, Checkpoint, int], None]


class VideoStage:
    """Noise (or v) prediction on encoded clips."""

    def __init__(
        self,
        role: Role,
        networks: Networks,
        model: ModelTable,
        objective: LossTable,
        train: VideoSet,
        test: VideoSet,
    ) -> None:
        self.role, self.networks, self.model, self.objective = role, networks, model, objective
        video = networks.video
        self.lora = LoRA(video.unet, model.lora_rank) if model.lora_rank else None
        self.modules: Mapping[str, nn.Module] = {"unet": video.unet, "appearnet": video.appearnet}
        if self.lora is not None:
            self.modules = {**self.modules, "lora": self.lora}
        self.dataset, self.test = train, test
        self.captions = captions_of(train)
        if self.captions == "tokens" and networks.text is None:
            raise ValueError(
                f"the captions of {train.folder} are tokens: model.image_file must name a text encoder"
            )
        self.alpha_bar = networks.video.schedule.alpha_bar.float()
        self.nothing = empty_caption(train)
        self.empty = self.encode_text(self.nothing[None])
        self.start: Callable[[Networks], None] | None = None

    def prepare(self) -> None:
        if self.start is not None:
            self.start(self.networks)
            self.start = None  # it holds the file that training starts from, which is not needed any more
        if self.model.injection != "concat":
            self.networks.video.appearnet.get_buffer("empty_prompt").copy_(self.empty[0])

    def to(self, device: torch.device) -> None:
        if self.networks.text is not None:
            self.networks.text.to(device)
        self.networks.vae.to(device)
        self.alpha_bar, self.nothing, self.empty = (
            tensor.to(device) for tensor in (self.alpha_bar, self.nothing, self.empty)
        )

    def group_of(self, name: str) -> str | None:
        """The paper's two rates (section 4.1): spatial layers of the U-Net, and all that is new or injects."""
        if name.startswith("lora."):
            return "lora"
        if name.startswith("appearnet."):
            return None if self.role.frozen(name) else "injection"
        return "temporal" if is_temporal(name) else "spatial"

    @torch.no_grad()
    def encode_text(self, captions: Tensor) -> Tensor:
        """Tokens (b, 77), or what is encoded already, (b, 77, d) -> (b, 77, d) float32."""
        if captions.is_floating_point() or self.networks.text is None:
            return captions.float()
        return self.networks.text(captions.long())

    def loss(self, batch: Batch, draws: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Eq. 5: the mean squared error of the predicted noise lambda z_c + eps_n, or of the v of that noise."""
        z_0 = draw_latents(batch, draws)
        clips = z_0.shape[0]
        context = self.encode_text(
            pick_captions(batch[self.captions], self.nothing, self.objective.drop_text, draws)
        )
        kept = (draws.uniform(clips) >= self.objective.drop_appearance).float()
        appearance = self.role.appearance(z_0)
        z_c = rearrange(appearance, "(b f) c h w -> b f c h w", b=clips)
        video = self.networks.video
        z_0 = video.diffused(z_0, z_c)
        eps_n = self.noise(z_0, draws)
        eps = training_noise(eps_n, z_c, self.model.lambda_ * kept[:, None, None, None, None])
        t = self.timesteps(clips, draws)
        alpha_bar = self.alpha_bar[t][:, None, None, None, None]
        z_t = diffuse(z_0, eps, alpha_bar)
        injection = video.injection(appearance, t.float(), context, kept)
        predicted = video.predict(z_t, t.float(), context, injection)
        error = (predicted.float() - training_target(z_0, eps, alpha_bar, video.prediction)).square()
        by_clip = reduce(error, "b f c h w -> b", "mean")
        weight = snr_weight(self.alpha_bar[t], self.objective.min_snr, video.prediction)
        return (by_clip * weight).mean(), band_losses(by_clip, t, len(self.alpha_bar))

    def timesteps(self, clips: int, draws: SharedRandom) -> Tensor:
        """(clips,) uniform over the schedule, or for some over its end."""
        steps = len(self.alpha_bar)
        t = draws.integers(steps, (clips,))
        if not self.objective.final_share:
            return t
        end = steps // FINAL
        return torch.where(draws.uniform(clips) < self.objective.final_share, steps - end + t % end, t)

    def noise(self, z_0: Tensor, draws: SharedRandom) -> Tensor:
        """eps_n, with an offset where the config asks for one."""
        eps_n = draws.normal(tuple(z_0.shape))
        if self.objective.noise_offset:
            clips, _, channels = z_0.shape[:3]
            eps_n = eps_n + self.objective.noise_offset * draws.normal((clips, 1, channels, 1, 1))
        return eps_n

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

    def sheet(self) -> Sheet:
        """Held-out clips in pairs of rows: the real frames, and frames sampled from their appearance and caption.

        The animated sheet has each pair side by side.
        """
        held_out, device = alike(self.test), self.alpha_bar.device
        step = max(1, len(held_out) // SHEET_CLIPS)
        items = [held_out[i * step] for i in range(min(SHEET_CLIPS, len(held_out)))]
        real = torch.stack([item["mean"] for item in items]).to(device)
        captions = torch.stack([item[self.captions][0] for item in items]).to(device)
        made = self.sample(real, captions, steps=SHEET_STEPS, guidance_scale=SHEET_GUIDANCE)
        clips, frames = real.shape[:2]
        rows = rearrange(torch.stack([real, made], dim=1), "b two f c h w -> (b two f) c h w")
        pictures = (
            torch.cat([self.networks.vae.decode(part) for part in rows.split(SHEET_DECODES)]).float().cpu()
        )
        by_frame = rearrange(pictures, "(b two f) c h w -> f (b two) c h w", b=clips, two=2)
        animated = torch.stack([grid(one, columns=4) for one in by_frame])
        return Sheet(grid(pictures, columns=frames), animated, fps=4 * min(self.dataset.index["fps"]))

    def export(self, path: Path, parts: Parts) -> None:
        """The file of both networks, with any LoRA merged; the LoRA also stands alone beside it."""
        parts = dict(parts)
        if self.lora is not None:
            low = parts.pop("lora")
            write_lora(path.with_name(f"{path.stem}_lora.safetensors"), low)
            parts["unet"] = merged(parts["unet"], low)
        index = self.dataset.index
        configs: dict[str, Any] = {
            "unet": self.networks.video.unet.config,
            "appearnet": self.networks.video.appearnet.config,
        }
        if isinstance(self.networks.vae, FoldedVAE):
            configs["vae"] = self.networks.vae.config  # its linear previews; the weights are the image file's
        write_checkpoint(
            path,
            parts,
            role=self.role.name,
            configs=configs,
            lambda_=self.model.lambda_,
            fps=min(index["fps"]),
            frames=index["frames"],
            prediction=self.networks.video.prediction,
            terminal=self.networks.video.terminal,
            residual=self.networks.video.residual,
            extra_metadata={"microcinema.training": json.dumps(self.settings())},
        )

    def settings(self) -> dict[str, Any]:
        """The [model] and [loss] tables as the file tells them: of other files the name alone, not where they lie."""
        return {
            **asdict(self.model),
            "image_file": Path(self.model.image_file).name,
            **asdict(self.objective),
        }


def snr_weight(alpha_bar: Tensor, gamma: float, prediction: Prediction) -> Tensor | float:
    """Weight of each clip's loss: min(SNR, gamma) over what the plain loss weighs z_0's error by."""
    if not gamma:
        return 1.0
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / (snr if prediction == "eps" else snr + 1)


def build_video_stage(role: Role, config: TrainConfig, device: str | None = None) -> VideoStage:
    """The stage of a role, from the file that `init_from` names; "meta" as device gives it no storage."""
    model = from_table(ModelTable, config.model, "[model]")
    objective = from_table(LossTable, config.loss, "[loss]")
    for key, given, wanted in (
        ("init_from", config.init_from, f"the file that training starts from ({' or '.join(role.reads)})"),
        ("data.folder", config.data.folder, "a set of encoded clips"),
    ):
        if not given:
            raise ValueError(f"{key} is empty; it names {wanted}")
    first = read_first(home_folder() / config.init_from, role.reads)
    pictures = home_folder() / (model.image_file or config.init_from)
    networks = Networks.build(model, *role.configs(model, first), first, pictures, device)
    train = open_set(config.data_folder)
    test = open_set(config.test_folder) if config.data.test_folder else train
    stage = VideoStage(role, networks, model, objective, train, test)
    stage.start = lambda networks: role.start(networks, first, config.seed)
    return stage
