"""What surrounds a video model: text encoder, VAE and image model, of Stable Diffusion or a MicroCinema image file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...data.tokens import MAX_TEXT_TOKENS, load_tokenizer, pad_tokens, text_tokens
from ...data.videos.encode import Encoders
from ...data.videos.stable_diffusion import decode_latents, load_decoder, load_encoder_networks
from ...diffusion.image_model import ImageModel
from ...files.checkpoint import is_microcinema, read_checkpoint
from ...files.load_networks import load_image_model, load_text_encoder, load_vae
from ...files.stable_diffusion import read_stable_diffusion
from ...frames.centre_frame import FOLDED_VAE_SIZE

DECODE_BATCH = 4
"""Frames that the VAE decodes at a time."""
SD_SIZES = {"eps": 512, "v": 768}
"""Side in pixels at which Stable Diffusion was last trained, by what it predicts: 1.x and 2.1-base, or 2.1."""


class Surroundings(Protocol):
    """Text encoder and VAE."""

    channels: int
    """Channels of the latents; they have an eighth of the sides."""

    def contexts(self, captions: Sequence[str]) -> Tensor:
        """Encode captions to contexts `n l d`; they are plain text, and cut off after MAX_TEXT_TOKENS."""
        ...

    def encode(self, pictures: Tensor) -> Tensor:
        """Encode pictures `n 3 h w` in [-1, 1] to latents `n c h/8 w/8`."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents `n c h w` to pictures `n 3 8h 8w` in [-1, 1]."""
        ...


class StableDiffusion:
    """The encoders and the decoder of a Stable Diffusion checkpoint, with ComfyUI's conventions."""

    channels = 4

    def __init__(self, path: Path, tokenizer: Path, device: str) -> None:
        self.encoders = Encoders(load_encoder_networks(path), tokenizer, device=device)
        self.vae = load_decoder(path).to(device)
        self.device = device

    def contexts(self, captions: Sequence[str]) -> Tensor:
        """Encode captions to contexts `n 77 d`."""
        return self.encoders.contexts(captions).to(self.device)

    def encode(self, pictures: Tensor) -> Tensor:
        """Encode pictures `n 3 h w` in [-1, 1] to the posterior's mean."""
        frames = ((pictures + 1) * 127.5).round().to(torch.uint8)
        return self.encoders.latents(frames)[0].to(self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents `n c h w` to pictures, clamped to [-1, 1]."""
        parts = [decode_latents(self.vae, part.float()) for part in latents.split(DECODE_BATCH)]
        return torch.cat(parts).clamp(-1, 1)


class MicroCinemaImage:
    """The text encoder and VAE of a MicroCinema file of the role image, such as `mini_image.safetensors`."""

    def __init__(self, path: Path, tokenizer: Path, device: str) -> None:
        file = read_checkpoint(path, expect_roles=("image",))
        self.text, self.vae = load_text_encoder(file).to(device), load_vae(file).to(device)
        self.tokenizer, self.device = load_tokenizer(tokenizer), device
        self.channels = self.vae.config.latent_channels

    @torch.no_grad()
    def contexts(self, captions: Sequence[str]) -> Tensor:
        """Encode captions to contexts `n 77 d`."""
        rows = [pad_tokens(text_tokens(self.tokenizer, text)) for text in captions]
        return self.text(torch.tensor(rows).to(self.device))

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Encode pictures `n 3 h w` in [-1, 1] to the posterior's mean."""
        return self.vae.encode(pictures.to(self.device))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents `n c h w` to pictures, clamped to [-1, 1]."""
        return torch.cat([self.vae.decode(part.float()) for part in latents.split(DECODE_BATCH)]).clamp(-1, 1)


def load_surroundings(path: Path, tokenizer: Path, device: str) -> StableDiffusion | MicroCinemaImage:
    """Load text encoder and VAE; errors as for `load_encoder_networks` and `read_checkpoint`."""
    kind = MicroCinemaImage if is_microcinema(path) else StableDiffusion
    return kind(path, tokenizer, device)


def load_centre_model(path: Path, device: str, dtype: torch.dtype) -> ImageModel:
    """Load the image model of the same file, which draws centre frames; errors as for `load_surroundings`."""
    file = (
        read_checkpoint(path, expect_roles=("image",))
        if is_microcinema(path)
        else read_stable_diffusion(path)
    )
    model = load_image_model(file, dtype=dtype)
    model.unet.to(device)
    return model


def drawn_size(path: Path, model: ImageModel) -> tuple[int, int]:
    """Return the width and height to draw at: those that the image model was trained at, as far as the file tells."""
    side = FOLDED_VAE_SIZE if is_microcinema(path) else SD_SIZES[model.spec.prediction]
    return side, side


def count_cut(tokenizer: Path, texts: Iterable[str]) -> int:
    """Return how many texts are longer than MAX_TEXT_TOKENS, so that their ends are not read."""
    clip = load_tokenizer(tokenizer)
    return sum(len(text_tokens(clip, text)) > MAX_TEXT_TOKENS for text in texts)
