"""Temporal super-resolution (section 3.1): three frames between each pair of adjacent key frames.

The caller supplies the sampler: the host's in the nodes, DDIM in training. This module holds the parts that do not
depend on it: the windows, their appearance latents, and the noise. Noise belongs to an absolute frame, so the result
does not depend on how windows are batched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..networks.appearnet import interpolated_appearance

FACTOR = 4
"""Factor of one round in the frame rate: 9 -> 33 -> 129 frames, 2 -> 8 -> 32 fps."""
WINDOW = FACTOR + 1
"""Frames of one window: two key frames and three between them."""
_ROUND_STRIDE = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Windows:
    """A batch of p windows, the sampler's input; all tensors `(p 5) c h w` unless noted.

    Attributes:
        noise: plain noise of the windows' frames.
        latents: key frames at both ends, zeros between them.
        mask: `(p 5) 1 1 1`; 0 on key frames, 1 on frames to generate.
        appearance: AppearNet's input and z_c of the noise prior, frame by frame.
    """

    noise: Tensor
    latents: Tensor
    mask: Tensor
    appearance: Tensor

    def halves(self) -> tuple[Windows, Windows]:
        """Split the windows into two batches, for when one does not fit in memory; needs at least two windows."""
        cut = (self.noise.shape[0] // WINDOW + 1) // 2 * WINDOW
        parts = [(t[:cut], t[cut:]) for t in (self.noise, self.latents, self.mask, self.appearance)]
        first, second = zip(*parts, strict=True)
        return Windows(*first), Windows(*second)


SampleWindows = Callable[[Windows], Tensor]
"""A sampler: a batch of windows -> latents `(p 5) c h w`."""


def frames_after(key_frames: int, rounds: int) -> int:
    """Return the number of frames after some rounds: 9 -> 33 -> 129."""
    return (key_frames - 1) * FACTOR**rounds + 1


def fps_after(fps: float, rounds: int) -> float:
    """Return the frame rate after some rounds: 2 -> 8 -> 32 fps."""
    return fps * FACTOR**rounds


def round_noise(
    seed: int, round_: int, frames: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw the plain noise `f c h w` of a round's whole output from one generator of (seed, round)."""
    generator = torch.Generator("cpu").manual_seed((seed + round_ * _ROUND_STRIDE) % 2**63)
    return torch.randn((frames, *shape), generator=generator, dtype=dtype)


def windows(keys: Tensor, noise: Tensor, first: int, count: int) -> Windows:
    """Build the windows of the pairs `first` to `first + count - 1`.

    Args:
        keys: key frames `k c h w`.
        noise: noise of the round's whole output, `(4 (k - 1) + 1) c h w`.
        first: index of the first pair.
        count: number of pairs.
    """
    starts, ends = keys[first : first + count], keys[first + 1 : first + count + 1]
    sliced = torch.stack([noise[i * FACTOR : i * FACTOR + WINDOW] for i in range(first, first + count)])
    latents = torch.zeros_like(sliced)
    latents[:, 0], latents[:, -1] = starts, ends
    mask = torch.ones(WINDOW, 1, 1, 1, dtype=keys.dtype)
    mask[0] = mask[-1] = 0.0
    return Windows(
        noise=rearrange(sliced, "p f c h w -> (p f) c h w"),
        latents=rearrange(latents, "p f c h w -> (p f) c h w"),
        mask=repeat(mask, "f c h w -> (p f) c h w", p=starts.shape[0]),
        appearance=interpolated_appearance(starts, ends, WINDOW),
    )


def interpolate(
    keys: Tensor,
    sample: SampleWindows,
    *,
    rounds: int = 1,
    seed: int = 0,
    chunk: Callable[[int], int] | int = 4,
) -> Tensor:
    """Interpolate key latents `k c h w` to `((k - 1) 4^rounds + 1) c h w`.

    The key frames come back bit for bit.

    Args:
        keys: key frames.
        sample: sampler of the windows.
        rounds: rounds of four-fold interpolation; each round's output is the next one's key frames.
        seed: seed of the noise.
        chunk: pairs per call of `sample`: a number, or a function of the number of pairs left.

    Raises:
        ValueError: fewer than two key frames, or fewer than one round.
    """
    if keys.shape[0] < 2:
        raise ValueError(
            f"interpolation was given {keys.shape[0]} key frame; it needs at least 2. "
            "Give the latents of a clip, for example the MicroCinema Sampler's output."
        )
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected 1 (four times the frames) or more.")
    for round_ in range(rounds):
        keys = _one_round(keys, sample, seed=seed, round_=round_, chunk=chunk)
    return keys


def _one_round(
    keys: Tensor, sample: SampleWindows, *, seed: int, round_: int, chunk: Callable[[int], int] | int
) -> Tensor:
    pairs = keys.shape[0] - 1
    noise = round_noise(seed, round_, frames_after(keys.shape[0], 1), tuple(keys.shape[1:])).to(keys)
    out = torch.empty_like(noise)
    done = 0
    while done < pairs:
        left = pairs - done
        count = max(1, min(left, chunk(left) if callable(chunk) else chunk))
        made = rearrange(sample(windows(keys, noise, done, count)), "(p f) c h w -> p f c h w", f=WINDOW)
        for i in range(count):
            start = (done + i) * FACTOR
            out[start + 1 : start + FACTOR] = made[i, 1:-1].to(out)
        done += count
    out[::FACTOR] = keys
    return out
