"""The common part of the stages `base` and `tsr`: Eq. 5's loss with Eq. 3's Appearance Noise Prior.

The two differ in their frames, in the appearance latents that AppearNet sees, and in their initial weights.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from ..config import AppearNetConfig, Prediction, UNetConfig
from ..diffusion.noise import GAMMA, training_noise
from ..diffusion.schedule import diffuse, training_target
from ..diffusion.video_model import VideoModel
from ..files.checkpoint import Checkpoint, write_checkpoint
from ..files.paths import home_folder
from ..files.published import MotionModule
from ..model_spec import SamplerDefaults
from ..networks.appearnet import AppearNet
from ..networks.layers import attention, unfused_attention
from ..networks.unet import UNet3D, is_temporal
from ..networks.vae import FoldedVAE
from .batches import (
    band_losses,
    caption_key,
    draw_latents,
    empty_caption,
    first_bucket,
    open_set,
    pick_captions,
)
from .config import TrainConfig, from_table, to_table
from .lora import LoRA, merge_lora, write_lora
from .memory import checkpoint_blocks
from .shared_random import SharedRandom
from .sheets import grid
from .stage import Batch, Parts, Sheet
from .start_files import load_frozen_networks, read_start
from .video_config import LossTable, ModelTable
from .video_inputs import require_fit, require_inputs
from .warm_start import read_motion, sources, sources_entry

SHEET_CLIPS, SHEET_STEPS, SHEET_GUIDANCE = 6, 16, 3.0
"""Clips, DDIM steps and guidance scale of a sample sheet."""
SHEET_DECODES = 256
"""Pictures of a sample sheet that are decoded at once."""
FINAL_FRACTION = 20
"""`final_share` draws from the last 1/20 of the noise schedule."""


class VideoStage(ABC):
    """Prediction of noise or v on encoded clips: networks, data, loss, sample sheets and export.

    Attributes:
        role: role of the files that the stage writes.
        starts_from: roles of the files that `init_from` may name.
        model, objective: the [model] and [loss] tables.
        dataset, test: clips to train on, and held-out clips for sample sheets.
        video: the U-Net and AppearNet, which are trained.
        text: the frozen text encoder; None where captions are encoded already.
        vae: the frozen decoder of sample sheets.
        motion: published motion weights to start from, until they are loaded; None for none.
        sources: the files of others that the weights come from.
        sampling: the sampler settings that the config recommends, fields of `SamplerDefaults`.
        groups: the config's factors on the learning rate, by group.
        captions: the items' key that holds the captions, "text" or "tokens".
        empty_caption, empty_context: the empty prompt in the captions' form, and encoded, `1 77 d`.

    Raises:
        ValueError: the config names no file or data set, or ones that do not fit the stage.
    """

    role: ClassVar[str]
    starts_from: ClassVar[tuple[str, ...]]

    def __init__(self, config: TrainConfig, *, device: str | None = None) -> None:
        self.model = from_table(ModelTable, config.model, "[model]")
        self.objective = from_table(LossTable, config.loss, "[loss]")
        self.seed, self.sampling, self.groups = config.seed, config.sampling, config.optim.groups
        require_inputs(config, self.starts_from)
        start = read_start(home_folder() / config.init_from, self.starts_from)
        self.dataset = open_set(config.data_folder)
        self.motion: MotionModule | None = None
        motion_from = home_folder() / self.model.motion_from
        if self.model.motion_from:
            frames, injection = self.dataset.index["frames"], self.model.injection
            start, self.motion = read_motion(motion_from, start, frames=frames, injection=injection)
        self.start: Checkpoint | None = start
        self.sources = sources(
            home_folder() / config.init_from, start, self.motion, motion_from, injection=self.model.injection
        )
        self.test = open_set(config.test_folder) if config.data.test_folder else self.dataset
        self.video = self._build_video_model(start, device)
        self.text, self.vae = load_frozen_networks(
            home_folder() / (self.model.image_file or config.init_from), with_text=bool(self.model.image_file)
        )
        self.lora = LoRA(self.video.unet, self.model.lora_rank) if self.model.lora_rank else None
        self.modules: Mapping[str, nn.Module] = {"unet": self.video.unet, "appearnet": self.video.appearnet}
        if self.lora is not None:
            self.modules = {**self.modules, "lora": self.lora}

        self.captions = caption_key(self.dataset)
        if self.captions == "tokens" and self.text is None:
            raise ValueError(
                f"the captions of {self.dataset.folder} are tokens: model.image_file must name a text encoder"
            )
        self.alpha_bar = self.video.schedule.alpha_bar.float()
        self.empty_caption = empty_caption(self.dataset)
        self.empty_context = self.encode_text(self.empty_caption[None])
        require_fit(self.video, (self.dataset, self.test), self.encode_text, config.model)

    def _build_video_model(self, start: Checkpoint, device: str | None) -> VideoModel:
        """Build the two networks with their constructors' weights, or without storage on the device "meta"."""
        unet_config, appearnet_config = self.network_configs(start)
        attend = attention if torch.cuda.is_available() else unfused_attention
        index = self.dataset.index
        spec = self.model.spec(self.role, start.spec, fps=min(index["fps"]), frames=index["frames"])
        video = VideoModel(
            UNet3D(unet_config, device=device, attend=attend),
            AppearNet(appearnet_config, device=device, attend=attend),
            replace(spec, sampling=self._recommended(start)),
        )
        if self.model.gradient_checkpointing:
            checkpoint_blocks(video.unet, video.appearnet)
        return video

    def _recommended(self, start: Checkpoint) -> SamplerDefaults:
        """Return the settings that the file recommends; what the config leaves out is that of the file that goes on.

        Published motion keeps its own, but for gamma: it gets the noise prior here, and so the paper's.
        """
        before = SamplerDefaults()
        if start.spec.role == self.role:
            before = start.spec.sampling
        elif self.motion is not None:
            before = replace(start.spec.sampling, gamma=GAMMA if self.model.lambda_ else 0.0)
        return replace(before, **self.sampling)

    @abstractmethod
    def network_configs(self, start: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
        """Return the configurations of the two networks, given the file that training starts from."""

    @abstractmethod
    def load_start(self, start: Checkpoint) -> None:
        """Set the weights of the two networks at step 0, from the file that training starts from."""

    @abstractmethod
    def appearance(self, z_0: Tensor) -> Tensor:
        """Return the appearance latents of clips `b f c h w`: `b c h w`, one per clip, or `(b f) c h w`."""

    @abstractmethod
    def is_frozen(self, name: str) -> bool:
        """Return whether a parameter of AppearNet, given by its full name, is always frozen."""

    def prepare(self) -> None:
        """Set the weights at step 0, and release the file that they come from."""
        if self.start is not None:
            self.load_start(self.start)
            self.start = None
        if self.video.appearnet.config.injection != "concat":
            self.video.appearnet.get_buffer("empty_prompt").copy_(self.empty_context[0])
        if self.looks:
            self.video.grey.copy_(first_bucket(self.dataset).grey)

    def to(self, device: torch.device) -> None:
        """Move the frozen networks and the constants to a device."""
        if self.text is not None:
            self.text.to(device)
        self.vae.to(device)
        self.alpha_bar, self.empty_caption, self.empty_context = (
            tensor.to(device) for tensor in (self.alpha_bar, self.empty_caption, self.empty_context)
        )

    def group_of(self, name: str) -> str | None:
        """Return the learning-rate group of a parameter (section 4.1).

        "spatial" is the U-Net's 2D layers, "temporal" its temporal layers, "injection" all of AppearNet, "lora" the
        low-rank additions. "appearance_attention" has the layers of that name if the config names it, else they are
        temporal. None: AppearNet's frozen parameters.
        """
        if name.startswith("lora."):
            return "lora"
        if name.startswith("appearnet."):
            return None if self.is_frozen(name) else "injection"
        if ".appearance_attention." in name and "appearance_attention" in self.groups:
            return "appearance_attention"
        return "temporal" if is_temporal(name) else "spatial"

    @torch.no_grad()
    def encode_text(self, captions: Tensor) -> Tensor:
        """Encode tokens `b 77` to `b 77 d` float32; captions that are encoded already pass through."""
        if captions.is_floating_point() or self.text is None:
            return captions.float()
        return self.text(captions.long())

    def loss(self, batch: Batch, random: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return Eq. 5's loss of a batch, and the losses by quarter of the noise schedule.

        It is the mean squared error of the predicted noise lambda z_c + eps_n, or of v for that noise. Text and
        appearance are dropped at random and independently; without appearance, lambda is 0 too.
        """
        z_0 = draw_latents(batch, random)
        clips = z_0.shape[0]
        captions, unguided = pick_captions(
            batch[self.captions], self.empty_caption, self.objective.text_dropout, random
        )
        context = self.encode_text(captions)
        kept = (random.uniform(clips) >= self.objective.appearance_dropout).float()
        appearance = self.appearance(z_0)
        z_c = rearrange(appearance, "(b f) c h w -> b f c h w", b=clips)
        video = self.video
        z_0 = video.to_diffused(z_0, z_c)
        eps_n = self.noise(z_0, random)
        eps = training_noise(eps_n, z_c, self.video.spec.lambda_ * kept[:, None, None, None, None])
        t = self.timesteps(clips, random)
        alpha_bar = self.alpha_bar[t][:, None, None, None, None]
        z_0 = self.scaled(z_0, t)
        z_t = diffuse(z_0, eps, alpha_bar)
        vision = self.vision(batch, unguided) if self.looks else None
        injection = video.injection(appearance, t.float(), context, kept, vision)
        predicted = video.predict(z_t, t.float(), context, injection)
        error = (predicted.float() - training_target(z_0, eps, alpha_bar, video.spec.prediction)).square()
        by_clip = reduce(error, "b f c h w -> b", "mean")
        weight = snr_weight(self.alpha_bar[t], self.objective.min_snr, video.spec.prediction)
        return (by_clip * weight).mean(), band_losses(by_clip, t, len(self.alpha_bar))

    @property
    def looks(self) -> bool:
        """Whether the weights look at pictures through CLIP vision too, as DynamiCrafter's do."""
        return self.video.appearnet.config.resampler is not None

    def vision(self, batch: Batch, unguided: Tensor) -> Tensor:
        """Return CLIP vision's features of a batch's pictures `b l d`, float32.

        A clip whose text is dropped sees mid grey, as the unguided branch does when the weights are sampled.
        """
        seen = batch["vision"].float()
        return torch.where(unguided[:, None, None], self.video.grey.to(seen), seen)

    def scaled(self, z_0: Tensor, t: Tensor) -> Tensor:
        """Return s_t z_0, for weights that were trained on scaled clean latents; else z_0."""
        if self.video.schedule.scales is None:
            return z_0
        return z_0 * self.video.schedule.scales.to(t.device)[t][:, None, None, None, None]

    def timesteps(self, clips: int, random: SharedRandom) -> Tensor:
        """Draw (clips,) timesteps, uniform over the schedule; a share `final_share` only from its end."""
        steps = len(self.alpha_bar)
        t = random.integers(steps, (clips,))
        if not self.objective.final_share:
            return t
        end = steps // FINAL_FRACTION
        return torch.where(random.uniform(clips) < self.objective.final_share, steps - end + t % end, t)

    def noise(self, z_0: Tensor, random: SharedRandom) -> Tensor:
        """Draw eps_n in the shape of z_0, with the offset noise of the config."""
        eps_n = random.normal(tuple(z_0.shape))
        if self.objective.noise_offset:
            clips, _, channels = z_0.shape[:3]
            eps_n = eps_n + self.objective.noise_offset * random.normal((clips, 1, channels, 1, 1))
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
        vision: Tensor | None = None,
    ) -> Tensor:
        """Sample clips from the appearance and the captions of given ones by DDIM.

        Args:
            z_0: latents of the given clips, `b f c h w`.
            tokens: a caption of each: `b 77` tokens or `b 77 d` encoded.
            steps: DDIM steps.
            guidance_scale: classifier-free guidance.
            seed: of the starting noise.
            gamma: strength of the noise prior at the start.
            vision: CLIP vision's features of their pictures, `b l d`, for weights that look at them through it.

        Returns:
            Latents `b f c h w`, float32.
        """
        return self.video.sample(
            self.appearance(z_0), self.encode_text(tokens), self.empty_context, frames=z_0.shape[1],
            steps=steps, guidance_scale=guidance_scale, seed=seed, gamma=gamma,
            vision=None if vision is None else vision.to(self.alpha_bar.device),
        )  # fmt: skip

    def vision_of(self, items: Sequence[Batch]) -> Tensor | None:
        """Return the features of the pictures of clips of the data set, for `sample`; None where none are seen."""
        return torch.stack([item["vision"] for item in items]) if self.looks else None

    def sheet(self) -> Sheet:
        """Make a sample sheet of held-out clips, in pairs of rows: real frames above sampled ones.

        Clips are sampled from the appearance and caption of the real ones. The animated sheet shows each pair side by
        side.
        """
        held_out, device = first_bucket(self.test), self.alpha_bar.device
        step = max(1, len(held_out) // SHEET_CLIPS)
        items = [held_out[i * step] for i in range(min(SHEET_CLIPS, len(held_out)))]
        real = torch.stack([item["mean"] for item in items]).to(device)
        captions = torch.stack([item[self.captions][0] for item in items]).to(device)
        made = self.sample(
            real, captions, steps=SHEET_STEPS, guidance_scale=SHEET_GUIDANCE, vision=self.vision_of(items)
        )
        clips, frames = real.shape[:2]
        rows = rearrange(torch.stack([real, made], dim=1), "b two f c h w -> (b two f) c h w")
        pictures = torch.cat([self.vae.decode(part) for part in rows.split(SHEET_DECODES)]).float().cpu()
        by_frame = rearrange(pictures, "(b two f) c h w -> f (b two) c h w", b=clips, two=2)
        animated = torch.stack([grid(one, columns=4) for one in by_frame])
        return Sheet(grid(pictures, columns=frames), animated, fps=4 * min(self.dataset.index["fps"]))

    def export(self, path: Path, parts: Parts) -> None:
        """Write the file of both networks with any LoRA merged, and the LoRA alone beside it."""
        parts = dict(parts)
        if self.lora is not None:
            low = parts.pop("lora")
            write_lora(path.with_name(f"{path.stem}_lora.safetensors"), low)
            parts["unet"] = merge_lora(parts["unet"], low)
        configs: dict[str, Any] = {
            "unet": self.video.unet.config,
            "appearnet": self.video.appearnet.config,
        }
        if isinstance(self.vae, FoldedVAE):
            configs["vae"] = self.vae.config  # for linear previews; the weights stay in the image file
        about = {"microcinema.training": json.dumps(self.settings()), **sources_entry(self.sources)}
        write_checkpoint(path, parts, spec=self.video.spec, configs=configs, extra_metadata=about)

    def settings(self) -> dict[str, Any]:
        """Return the [model] and [loss] tables for the metadata; other files by name, without their folders."""
        return {
            **to_table(self.model),
            "image_file": Path(self.model.image_file).name,
            "motion_from": Path(self.model.motion_from).name,
            **to_table(self.objective),
        }


def snr_weight(alpha_bar: Tensor, gamma: float, prediction: Prediction) -> Tensor | float:
    """Return the weight of each clip's loss under min-SNR weighting (Hang et al. 2023).

    The plain loss weighs the error of z_0 by the SNR (eps) or by SNR + 1 (v); this makes it min(SNR, gamma).

    Args:
        alpha_bar: (n,), one per clip.
        gamma: the limit; 0 turns the weighting off.
        prediction: "eps" or "v".
    """
    if not gamma:
        return 1.0
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / (snr if prediction == "eps" else snr + 1)
