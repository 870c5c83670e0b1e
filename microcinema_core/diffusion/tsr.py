"""Temporal super-resolution (section 3.1): new frames between adjacent key frames, three in the paper.

The caller supplies the sampler: the host's in the nodes, DDIM in training. This module holds the parts that do not
depend on it: the windows, their appearance latents, and the noise. Noise belongs to an absolute frame, so the result
does not depend on how windows are batched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..model_spec import WindowShape
from ..networks.appearance_input import line_between

PAPER = WindowShape()
"""The paper's windows: two key frames and three between them; other weights have others."""
FACTOR = PAPER.factor
"""Factor of one round in the frame rate: 9 -> 33 -> 129 frames, 2 -> 8 -> 32 fps."""
WINDOW = PAPER.frames
"""Frames of one of the paper's windows."""
_ROUND_STRIDE = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Windows:
    """A batch of p windows of f frames, the sampler's input; all tensors `(p f) c h w` unless noted.

    Attributes:
        noise: plain noise of the windows' frames.
        latents: the key frames, zeros between them.
        mask: `(p f) 1 1 1`; 0 on key frames, 1 on frames to generate.
        appearance: z_c of the noise prior: the key frames and the lines between them.
        frames: frames of one window, f.
        given: indices of the key frames within a window.
        index: `(p f)`, each frame's index in the finished video.
    """

    noise: Tensor
    latents: Tensor
    mask: Tensor
    appearance: Tensor
    frames: int
    given: tuple[int, ...]
    index: Tensor

    def halves(self) -> tuple[Windows, Windows]:
        """Split the windows into two batches, for when one does not fit in memory; needs at least two windows."""
        cut = (self.noise.shape[0] // self.frames + 1) // 2 * self.frames

        def part(of: slice) -> Windows:
            tensors = (self.noise[of], self.latents[of], self.mask[of], self.appearance[of])
            return Windows(*tensors, frames=self.frames, given=self.given, index=self.index[of])

        return part(slice(cut)), part(slice(cut, None))


SampleWindows = Callable[[Windows], Tensor]
"""A sampler: a batch of windows -> latents `(p f) c h w`."""
Noise = Callable[[int, int, tuple[int, ...]], Tensor]
"""The plain noise of a round's output: the round, its number of frames f, and c h w -> `f c h w`."""


def frames_after(key_frames: int, rounds: int, factor: int = FACTOR) -> int:
    """Return the number of frames after some rounds: 9 -> 33 -> 129."""
    return (key_frames - 1) * factor**rounds + 1


def fps_after(fps: float, rounds: int, factor: int = FACTOR) -> float:
    """Return the frame rate after some rounds: 2 -> 8 -> 32 fps.

    Raises:
        ValueError: `fps` is not a finite number above 0.
    """
    if not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"fps is {fps}; expected a finite number above 0.")
    return fps * factor**rounds


def window_starts(key_frames: int, shape: WindowShape = PAPER) -> list[int]:
    """Return the first key frame of each window of a round.

    Windows follow each other. The last one is moved back where it would reach beyond the end. Fewer pairs than a window
    holds make one shorter window.
    """
    pairs = key_frames - 1
    held = min(shape.pairs, pairs)
    starts = list(range(0, pairs - held + 1, held))
    return starts if starts[-1] + held == pairs else [*starts, pairs - held]


def round_noise(
    seed: int, round_: int, frames: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw the plain noise `f c h w` of a round's whole output from one generator of (seed, round).

    No round draws what a sampler draws for that seed, so that key frames and new frames have noise of their own.
    """
    return torch.randn((frames, *shape), generator=_generator(seed, round_), dtype=dtype)


def _generator(seed: int, round_: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed((seed + (round_ + 1) * _ROUND_STRIDE) % 2**64)


class NoiseStream:
    """The noise of `round_noise`, drawn as far as it is needed, for a video whose length is not known.

    It equals that of one draw, since the numbers are drawn in order. (Of frames whose number of values is no multiple
    of 16, the last 16 values of a whole draw differ: torch's generator ends differently there.)

    Args:
        seed, round_: as for `round_noise`.
        shape: `c h w` of a frame's latents.
    """

    BLOCK = 16
    """Frames that are drawn at once: torch draws normal numbers in blocks of 16."""

    def __init__(self, seed: int, round_: int, shape: tuple[int, ...]) -> None:
        self.generator = _generator(seed, round_)
        self.first, self.held = 0, torch.empty(0, *shape)

    def __call__(self, first: int, frames: int) -> Tensor:
        """Return the noise `f c h w` from a frame on; frames before it are let go."""
        self.held, self.first = self.held[first - self.first :], first
        while len(self.held) < frames:
            more = torch.randn((self.BLOCK, *self.held.shape[1:]), generator=self.generator)
            self.held = torch.cat([self.held, more])
        return self.held[:frames]


def windows(
    keys: Tensor, noise: Tensor, starts: Sequence[int], shape: WindowShape = PAPER, *, stride: int = 1
) -> Windows:
    """Build a batch of windows.

    Args:
        keys: key frames `k c h w`.
        noise: noise of the round's whole output, `(factor (k - 1) + 1) c h w`.
        starts: the windows' first key frames, from `window_starts`.
        shape: the windows' shape.
        stride: frames of the finished video between two frames of this round.
    """
    pairs = min(shape.pairs, keys.shape[0] - 1)
    frames = shape.factor * pairs + 1
    given = tuple(range(0, frames, shape.factor))
    sliced = torch.stack([noise[i * shape.factor : i * shape.factor + frames] for i in starts])
    inside = torch.stack([keys[i : i + pairs + 1] for i in starts])
    latents = torch.zeros_like(sliced)
    latents[:, :: shape.factor] = inside
    mask = torch.ones(frames, 1, 1, 1, dtype=keys.dtype)
    mask[:: shape.factor] = 0.0
    return Windows(
        noise=rearrange(sliced, "p f c h w -> (p f) c h w"),
        latents=rearrange(latents, "p f c h w -> (p f) c h w"),
        mask=repeat(mask, "f c h w -> (p f) c h w", p=len(starts)),
        appearance=torch.cat([line_between(pictures, given, frames) for pictures in inside]),
        frames=frames,
        given=given,
        index=torch.cat([torch.arange(frames) + i * shape.factor for i in starts]) * stride,
    )


def interpolate(
    keys: Tensor,
    sample: SampleWindows,
    *,
    shape: WindowShape = PAPER,
    rounds: int = 1,
    seed: int = 0,
    chunk: Callable[[int], int] | int = 4,
    noise: Noise | None = None,
) -> Tensor:
    """Interpolate key latents `k c h w` to `((k - 1) factor^rounds + 1) c h w`.

    The key frames come back bit for bit. Where two windows overlap, the frames of the earlier one stay.

    Args:
        keys: key frames.
        sample: sampler of the windows.
        shape: the windows' shape.
        rounds: rounds of interpolation; each round's output is the next one's key frames.
        seed: seed of the noise.
        chunk: windows per call of `sample`: a number, or a function of the number of windows left.
        noise: the rounds' noise, for a part of a longer video; by default `round_noise` of the seed.

    Raises:
        ValueError: fewer than two key frames, or fewer than one round.
    """
    if keys.shape[0] < 2:
        raise ValueError(
            f"interpolation was given {keys.shape[0]} key frame; it needs at least 2. "
            "Give the latents of a clip, for example the MicroCinema Sampler's output."
        )
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected 1 ({shape.factor} times the frame rate) or more.")
    of_frame = tuple(keys.shape[1:])
    for round_ in range(rounds):
        frames = frames_after(keys.shape[0], 1, shape.factor)
        drawn = noise(round_, frames, of_frame) if noise else round_noise(seed, round_, frames, of_frame)
        stride = shape.factor ** (rounds - 1 - round_)
        keys = _one_round(keys, drawn.to(keys), sample, shape, chunk=chunk, stride=stride)
    return keys


def _one_round(
    keys: Tensor,
    noise: Tensor,
    sample: SampleWindows,
    shape: WindowShape,
    *,
    chunk: Callable[[int], int] | int,
    stride: int,
) -> Tensor:
    out = torch.empty_like(noise)
    starts, written = window_starts(keys.shape[0], shape), 0
    while starts:
        count = max(1, min(len(starts), chunk(len(starts)) if callable(chunk) else chunk))
        batch, starts = starts[:count], starts[count:]
        built = windows(keys, noise, batch, shape, stride=stride)
        made = rearrange(sample(built), "(p f) c h w -> p f c h w", f=built.frames)
        for start, clip in zip(batch, made, strict=True):
            first = start * shape.factor
            new = max(written - first, 0)
            written = first + built.frames
            out[first + new : written] = clip[new:].to(out)
    out[:: shape.factor] = keys
    return out
