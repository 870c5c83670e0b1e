"""Temporal super-resolution (section 3.1): each adjacent pair of key frames becomes five, the given two kept.

Which sampler runs is the caller's: the host's in the nodes, DDIM in training. Here is what does not depend on it: the
windows, their appearance, and noise that belongs to an absolute frame, so that batching windows changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..networks.appearnet import interpolated_appearance

FACTOR = 4
"""Each round multiplies the frame rate by this: 9 -> 33 -> 129 frames, 2 -> 8 -> 32 fps."""
WINDOW = FACTOR + 1
"""Frames that the model sees at once: two given ones and the three between."""
_ROUND_STRIDE = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Windows:
    """A batch of p pairs, as a sampler takes it. All tensors `(p 5) c h w`.

    latents: given ends, zeros between. mask `(p 5) 1 1 1`: 0 on given frames, 1 where frames are to be made.
    appearance: what AppearNet sees and the noise prior is built from, frame by frame.
    """

    noise: Tensor
    latents: Tensor
    mask: Tensor
    appearance: Tensor

    def halves(self) -> tuple[Windows, Windows]:
        """The same pairs in two batches, where one is too many; needs two pairs or more."""
        cut = (self.noise.shape[0] // WINDOW + 1) // 2 * WINDOW
        parts = [(t[:cut], t[cut:]) for t in (self.noise, self.latents, self.mask, self.appearance)]
        first, second = zip(*parts, strict=True)
        return Windows(*first), Windows(*second)


SampleWindows = Callable[[Windows], Tensor]
"""Makes `(p 5) c h w` latents of a batch of windows."""


def frames_after(key_frames: int, rounds: int) -> int:
    """9 -> 33 -> 129."""
    return (key_frames - 1) * FACTOR**rounds + 1


def round_noise(
    seed: int, round_: int, frames: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Plain noise `f c h w` for one round's whole output, one draw from a generator of (seed, round)."""
    generator = torch.Generator("cpu").manual_seed((seed + round_ * _ROUND_STRIDE) % 2**63)
    return torch.randn((frames, *shape), generator=generator, dtype=dtype)


def windows(keys: Tensor, noise: Tensor, first: int, count: int) -> Windows:
    """The windows of pairs `first` .. `first + count - 1`.

    keys: key frames `k c h w`. noise: of the whole output, `(4 (k - 1) + 1) c h w`.
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
    """Key latents `k c h w` -> `((k - 1) 4^rounds + 1) c h w`; the given frames come back bit for bit.

    chunk: pairs per call of `sample`, a number, or a function of how many are left.
    Raises ValueError for fewer than two key frames or no round.
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
