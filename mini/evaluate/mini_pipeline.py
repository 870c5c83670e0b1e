"""The mini models without ComfyUI: text encoding, VAE, sampling of key frames, and interpolation between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from microcinema_core.data.tokens import CaptionTokenizer
from microcinema_core.diffusion.ddim import KnownFrames
from microcinema_core.diffusion.noise import GAMMA
from microcinema_core.diffusion.tsr import FACTOR, WINDOW, round_noise
from microcinema_core.diffusion.video_model import VideoModel
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_text_encoder, load_vae
from microcinema_core.files.paths import home_folder, tokenizer_folder
from microcinema_core.networks.appearnet import interpolated_appearance
from microcinema_core.networks.text import TextEncoder
from microcinema_core.networks.vae import FoldedVAE

from ..world.render import BASE_TIMES

FRAMES = len(BASE_TIMES)
BATCH = 8


@dataclass(frozen=True)
class DDIMSettings:
    """Settings of DDIM with evenly spaced steps, which is ComfyUI's `ddim` with the scheduler `normal`.

    Attributes:
        steps: number of steps.
        guidance_scale: scale of classifier-free guidance; 1 turns it off.
        seed: seed of the starting noise.
        gamma: share of the centre frame in the starting noise.
    """

    steps: int = 20
    guidance_scale: float = 2.0
    seed: int = 0
    gamma: float = GAMMA

    def seeded(self, seed: int) -> DDIMSettings:
        """Return the settings with `seed` added to their own."""
        return replace(self, seed=self.seed + seed)


@dataclass
class MiniPipeline:
    """Tokenizer, text encoder and VAE of an image file; video models are passed to its methods."""

    text: TextEncoder
    vae: FoldedVAE
    tokenizer: CaptionTokenizer

    @classmethod
    def read(cls, image_file: Path) -> MiniPipeline:
        """Load the networks from a file of role image, and ComfyUI's tokenizer."""
        image = read_checkpoint(image_file, expect_roles=("image",))
        tokenizer = CaptionTokenizer(tokenizer_folder(home_folder()))
        return cls(load_text_encoder(image), load_vae(image), tokenizer)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Encode captions as contexts `n l d`."""
        return self.text(self.tokenizer(captions).long())

    @torch.no_grad()
    def encode(self, clips: Tensor) -> Tensor:
        """Encode pictures `n f c h w` in [-1, 1] as latents `n f c h w`."""
        return torch.stack([self.vae.encode(clip) for clip in clips])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents `n f c h w` to pictures `n f c h w`, clamped to [-1, 1]."""
        return torch.stack([self.vae.decode(clip).clamp(-1, 1) for clip in latents])

    def sample_key_frames(
        self,
        model: VideoModel,
        centres: Tensor,
        captions: Sequence[str],
        settings: DDIMSettings,
        *,
        strength: float = 1.0,
    ) -> Tensor:
        """Sample nine latents around each centre frame.

        Args:
            model: the base model.
            centres: latents `n c h w` of the centre frames.
            captions: one caption for each centre frame.
            settings: sampler settings.
            strength: strength of AppearNet; 0 samples from the U-Net alone.

        Returns:
            Latents `n f c h w`.
        """
        empty = self.encode_text([""])
        sampled = [
            model.sample(
                centres[part], self.encode_text(captions[part]), empty, frames=FRAMES, strength=strength,
                **asdict(settings.seeded(part.start)),
            )
            for part in slices(len(centres), BATCH)
        ]  # fmt: skip
        return torch.cat(sampled)

    def interpolate(
        self,
        model: VideoModel,
        key_frames: Tensor,
        captions: Sequence[str],
        settings: DDIMSettings,
        *,
        round_: int = 0,
    ) -> Tensor:
        """Run one round of TSR; the key frames are kept.

        The noise is the TSR node's, with a seed for each clip: the settings' for the first, the next for the second.

        Args:
            model: the TSR model.
            key_frames: latents `n k c h w`.
            captions: one caption for each clip.
            settings: sampler settings.
            round_: which round this is, from 0; the rounds of one seed differ in their noise.

        Returns:
            Latents `n f c h w` with f = 4 (k - 1) + 1.
        """
        pairs = key_frames.shape[1] - 1
        first = rearrange(key_frames[:, :-1], "n p c h w -> (n p) c h w")
        last = rearrange(key_frames[:, 1:], "n p c h w -> (n p) c h w")
        noise = torch.cat([
            _window_noise(settings.seed + clip, round_, pairs, key_frames.shape[2:])
            for clip in range(len(key_frames))
        ])  # fmt: skip
        text = self.encode_text(captions).repeat_interleave(pairs, dim=0)
        empty = self.encode_text([""])
        sampled = []
        for part in slices(len(first), 2 * BATCH):
            start, end = first[part], last[part]
            appearance = interpolated_appearance(start, end, WINDOW)
            window = model.sample(
                appearance, text[part], empty, frames=WINDOW, given=_known_ends(start, end), noise=noise[part],
                **asdict(settings),
            )  # fmt: skip
            sampled.append(window[:, 1:-1])
        return _interleave(key_frames, torch.cat(sampled))


def blend(key_frames: Tensor) -> Tensor:
    """Interpolate latents linearly, the baseline without a model: `n k c h w` -> `n f c h w`, f = 4 (k - 1) + 1."""
    start, end = key_frames[:, :-1], key_frames[:, 1:]
    inner = [torch.lerp(start, end, i / FACTOR) for i in range(1, FACTOR)]
    return _interleave(key_frames, rearrange(torch.stack(inner, dim=2), "n p f c h w -> (n p) f c h w"))


def _interleave(key_frames: Tensor, inner: Tensor) -> Tensor:
    """Put the frames `(n p) f c h w` of each pair between its key frames `n k c h w`."""
    pairs = key_frames.shape[1] - 1
    inner = rearrange(inner, "(n p) f c h w -> n p f c h w", p=pairs)
    rows = torch.cat([key_frames[:, :-1, None], inner], dim=2)
    return torch.cat([rearrange(rows, "n p f c h w -> n (p f) c h w"), key_frames[:, -1:]], dim=1)


def _window_noise(seed: int, round_: int, pairs: int, shape: torch.Size) -> Tensor:
    """Return a clip's TSR noise by window, `p f c h w`; neighbours share the noise of their common key frame."""
    noise = round_noise(seed, round_, pairs * FACTOR + 1, tuple(shape))
    return torch.stack([noise[pair * FACTOR : pair * FACTOR + WINDOW] for pair in range(pairs)])


def _known_ends(start: Tensor, end: Tensor) -> KnownFrames:
    """Return a window's first and last latents `b c h w` as known frames."""
    latents = start.new_zeros(len(start), WINDOW, *start.shape[1:])
    latents[:, 0], latents[:, -1] = start, end
    mask = start.new_ones(1, WINDOW, 1, 1, 1)
    mask[:, 0] = mask[:, -1] = 0
    return KnownFrames(latents, mask)


def slices(count: int, size: int) -> Iterator[slice]:
    """Split `count` items into slices of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
