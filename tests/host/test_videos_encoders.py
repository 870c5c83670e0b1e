"""Latents, pictures and contexts of a checkpoint are those that the host computes from the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from devtools.check import tiny
from devtools.check.stable_diffusion import SD15_UNET, SD21_UNET, write_stable_diffusion
from microcinema_core.data.videos.encode import Encoders
from microcinema_core.data.videos.stable_diffusion import decode_latents, load_decoder, load_encoder_networks

pytest.importorskip("diffusers")
CAPTIONS = ["", "a horse galloping over a field", "A Cat, 3 dogs & an owl!"]


def write_checkpoint(path: Path, kind: str) -> Path:
    """A file with all keys and shapes of Stable Diffusion 1.5 or 2.1, but for a small U-Net."""
    unet = tiny.unet_weights(SD15_UNET if kind == "sd1" else SD21_UNET)
    return write_stable_diffusion(path, kind, unet=unet, small=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_they_are_the_hosts(comfy_in_process: Path, tmp_path: Path, kind: str) -> None:
    import comfy.latent_formats
    import comfy.sd

    path = write_checkpoint(tmp_path / f"{kind}.safetensors", kind)
    ours = Encoders(load_encoder_networks(path), comfy_in_process / "comfy" / "sd1_tokenizer")
    _, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_model=False)
    contexts = ours.contexts(CAPTIONS)
    assert contexts.shape == (3, 77, 768 if kind == "sd1" else 1024)
    for caption, context in zip(CAPTIONS, contexts, strict=True):
        tokens = clip.tokenize(caption)
        [rows] = tokens.values()
        assert [int(token) for token, _ in rows[0]] == ours.tokens([caption])[0].tolist()
        theirs = clip.encode_from_tokens(tokens).float()
        close(context[None], theirs, 1e-4)
    frames = torch.randint(
        0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    mean, std = ours.latents(frames)
    with torch.inference_mode():
        raw = vae.encode(frames.movedim(1, -1).float() / 255).float()
        scaled = comfy.latent_formats.SD15().process_in(raw)
        close(mean, scaled, 1e-4)
        close(std, their_std(vae, frames) * 0.18215, 1e-4)
        shown = decode_latents(load_decoder(path), mean).movedim(1, -1) / 2 + 0.5
        close(shown.clamp(0, 1), vae.decode(raw).float(), 1e-4)


def their_std(vae: Any, frames: Tensor) -> Tensor:
    """The host keeps the mean alone; its own encoder and its own distribution give the deviation."""
    from comfy.ldm.modules.distributions.distributions import DiagonalGaussianDistribution

    model = vae.first_stage_model.float()
    moments = model.quant_conv(model.encoder(frames.float() / 127.5 - 1))
    return DiagonalGaussianDistribution(moments).std


def close(ours: Tensor, theirs: Tensor, part: float) -> None:
    """Equal but for what the host's own dtypes round away: the largest difference over the largest value."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs.cpu()).abs().max() / theirs.abs().max()) < part
