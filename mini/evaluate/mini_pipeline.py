"""The mini family at work without a host: captions, pictures and latents in, latents and pictures out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from microcinema_core.data.tokens import CaptionTokenizer
from microcinema_core.diffusion.ddim import Given
from microcinema_core.diffusion.noise import GAMMA
from microcinema_core.diffusion.tsr import FACTOR, WINDOW
from microcinema_core.diffusion.video_model import VideoModel
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.paths import home_folder, tokenizer_folder
from microcinema_core.networks.appearnet import interpolated_appearance
from microcinema_core.networks.text import TextEncoder
from microcinema_core.networks.vae import FoldedVAE
from microcinema_core.train.latents import load_text, load_vae

FRAMES = 9
BATCH = 8


@dataclass(frozen=True)
class Settings:
    """Of the sampler: DDIM in steps of even spacing, the host's `ddim` and `normal`."""

    steps: int = 20
    guidance_scale: float = 2.0
    seed: int = 0
    gamma: float = GAMMA

    def seeded(self, seed: int) -> Settings:
        return replace(self, seed=self.seed + seed)


@dataclass
class MiniPipeline:
    """Text encoder and VAE of an image file."""

    text: TextEncoder
    vae: FoldedVAE
    tokenizer: CaptionTokenizer

    @classmethod
    def read(cls, image_file: Path) -> MiniPipeline:
        image = read_checkpoint(image_file, expect_roles=("image",))
        tokenizer = CaptionTokenizer(tokenizer_folder(home_folder()))
        return cls(load_text(image), load_vae(image), tokenizer)

    @torch.no_grad()
    def context(self, captions: Sequence[str]) -> Tensor:
        """`n l d`."""
        return self.text(self.tokenizer(captions).long())

    @torch.no_grad()
    def encode(self, clips: Tensor) -> Tensor:
        """Pictures `n f c h w` in [-1, 1] -> latents `n f c h w`."""
        return torch.stack([self.vae.encode(clip) for clip in clips])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents `n f c h w` -> pictures, clamped to [-1, 1]."""
        return torch.stack([self.vae.decode(clip).clamp(-1, 1) for clip in latents])

    def key_frames(
        self,
        model: VideoModel,
        centres: Tensor,
        captions: Sequence[str],
        settings: Settings,
        *,
        strength: float = 1.0,
    ) -> Tensor:
        """Nine latents around each centre frame `n c h w`: `n f c h w`."""
        empty = self.context([""])
        made = [
            model.sample(
                centres[part], self.context(captions[part]), empty, frames=FRAMES, strength=strength,
                **asdict(settings.seeded(part.start)),
            )
            for part in batches(len(centres), BATCH)
        ]  # fmt: skip
        return torch.cat(made)

    def between(self, model: VideoModel, keys: Tensor, captions: Sequence[str], settings: Settings) -> Tensor:
        """One round of TSR: latents `n k c h w` -> `n 4 (k - 1) + 1 c h w`, the given ones kept."""
        pairs = keys.shape[1] - 1
        first = rearrange(keys[:, :-1], "n p c h w -> (n p) c h w")
        last = rearrange(keys[:, 1:], "n p c h w -> (n p) c h w")
        text = self.context(captions).repeat_interleave(pairs, dim=0)
        empty = self.context([""])
        made = []
        for part in batches(len(first), 2 * BATCH):
            start, end = first[part], last[part]
            line = interpolated_appearance(start, end, WINDOW)
            window = model.sample(
                line, text[part], empty, frames=WINDOW, given=_ends(start, end),
                **asdict(settings.seeded(part.start)),
            )  # fmt: skip
            made.append(window[:, 1:-1])
        return _joined(keys, torch.cat(made))


def blended(keys: Tensor) -> Tensor:
    """What costs no model: the line between neighbouring latents, `n k c h w` -> `n 4 (k - 1) + 1 c h w`."""
    start, end = keys[:, :-1], keys[:, 1:]
    between = [torch.lerp(start, end, i / FACTOR) for i in range(1, FACTOR)]
    return _joined(keys, rearrange(torch.stack(between, dim=2), "n p f c h w -> (n p) f c h w"))


def _joined(keys: Tensor, inner: Tensor) -> Tensor:
    pairs = keys.shape[1] - 1
    inner = rearrange(inner, "(n p) f c h w -> n p f c h w", p=pairs)
    rows = torch.cat([keys[:, :-1, None], inner], dim=2)
    return torch.cat([rearrange(rows, "n p f c h w -> n (p f) c h w"), keys[:, -1:]], dim=1)


def _ends(start: Tensor, end: Tensor) -> Given:
    latents = start.new_zeros(len(start), WINDOW, *start.shape[1:])
    latents[:, 0], latents[:, -1] = start, end
    mask = start.new_ones(1, WINDOW, 1, 1, 1)
    mask[:, 0] = mask[:, -1] = 0
    return Given(latents, mask)


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of at most so many."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
