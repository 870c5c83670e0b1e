"""Render and encode the clips of one shard with the VAE of a MicroCinema file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.data.tokens import CaptionTokenizer
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_vae

from .clips import FRAMES, ClipSample, ClipSampler
from .render import render

EncodeMoments = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Map pictures `n 3 h w` in [-1, 1] to mean and std of their latents, `n c h/8 w/8` each, float32."""


def load_encoder(path: Path, *, dtype: str) -> EncodeMoments:
    """Load the VAE of a MicroCinema file and return its encoder.

    Args:
        path: a file that holds a VAE.
        dtype: `bf16` (autocast, float32 accumulation) or `fp32`.
    """
    vae = load_vae(read_checkpoint(path)).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(pictures: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            mean, std = vae.encode_moments(pictures.to(memory_format=torch.channels_last))
        return mean.float(), std.float()

    return encode


def encoder_hash(path: Path) -> str:
    """Return a hash of the VAE encoder's tensors as float16; a new decoder does not invalidate latents."""
    digest = hashlib.sha256()
    encoder = {k: t for k, t in read_checkpoint(path).part("vae").items() if k.startswith("encoder.")}
    for key, tensor in sorted(encoder.items()):
        digest.update(key.encode())
        digest.update(tensor.half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_shard(
    sampler: ClipSampler,
    tokenizer: CaptionTokenizer,
    encode: EncodeMoments,
    indices: range,
    *,
    batch_frames: int,
) -> tuple[dict[str, Tensor], list[dict]]:
    """Encode the samples `indices` and return the shard's tensors, as `ShardDataset` describes them, and recipes.

    Args:
        sampler: the set's clips.
        tokenizer: tokenizer of their captions.
        encode: the VAE's encoder.
        indices: numbers of the samples in the set.
        batch_frames: frames encoded at once, rounded down to whole clips.
    """
    samples = [sampler[index] for index in indices]
    moments = [encode(frames) for frames in _frame_batches(sampler, samples, batch_frames)]
    mean, std = (torch.cat([pair[i].half() for pair in moments]) for i in (0, 1))
    shape = (len(samples), FRAMES[sampler.role], *mean.shape[1:])
    groups = {key: number for number, key in enumerate(sampler.motion_keys)}
    tensors = {
        "mean": mean.reshape(shape).contiguous(),
        "std": std.reshape(shape).contiguous(),
        "tokens": torch.stack([tokenizer(sample.captions) for sample in samples]),
        "fps": torch.tensor([sample.fps for sample in samples], dtype=torch.float32),
        "group": torch.tensor([groups[s.clip.emoji.motion_key] for s in samples], dtype=torch.int32),
    }
    return tensors, [sample.recipe() for sample in samples]


def _frame_batches(sampler: ClipSampler, samples: list[ClipSample], batch_frames: int) -> Iterator[Tensor]:
    """Render all frames of all samples, in order, in batches of whole clips."""
    clips = max(1, batch_frames // FRAMES[sampler.role])
    for start in range(0, len(samples), clips):
        part = samples[start : start + clips]
        yield torch.cat([render(sampler.folder, sample.clip, sample.times) for sample in part])
