"""TSR on a video file of any length, part by part: memory does not grow with it, and no seam is seen.

Each part ends with the frame that the next one begins with, and consists of whole windows. Noise belongs to a frame's
place in the video. So the frames are those of one run over the whole video, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from einops import rearrange
from torch import Tensor

from ..diffusion import tsr
from ..frames.centre_frame import SIZE_STEP, require_finite, resize
from ..frames.video_file import TimedFrame, VideoSource
from ..frames.video_writer import VideoWriter
from .frame_conditioning import require_single
from .interpolating import Interpolator
from .memory import stop_if_cancelled
from .tsr_windows import WindowProgress

T = TypeVar("T")
WINDOWS = 16
"""Windows between the key frames of a part: their latents are held at once."""
PICTURES = 8
"""Frames that are encoded or decoded at once."""
SMALLEST_SIDE = 16
"""Pixels: an autoencoder or a U-Net may fail on smaller pictures."""


class Key(NamedTuple):
    """Latents `c h w` of a given frame, and its time in seconds."""

    time: Fraction
    latents: Tensor


def interpolate_file(
    run: Interpolator, vae: Any, source: VideoSource, target: VideoWriter, *, longer_side: int = 0
) -> None:
    """Interpolate a video and write it, with its sound.

    Args:
        run: model and settings, with one text for the whole video.
        vae: the model's VAE.
        source: the video.
        target: where it is written to.
        longer_side: pixels of the result's longer side; 0 keeps the size. Sides become multiples of 8.

    Raises:
        ValueError: a video of one frame, latents of another model's VAE, pictures with NaN, or as for `Interpolator`.
        OSError: the file cannot be written to.
    """
    keys = (
        Key(frame.time, latents)
        for batch in _batches(source.frames(target.add_sound))
        for frame, latents in zip(batch, _encoded(run, vae, batch, longer_side), strict=True)
    )
    made = interpolate_parts(run, keys, run.progress(source.expected_frames))
    for batch in _batches(made):
        pictures = vae.decode(torch.stack([key.latents for key in batch]))
        require_finite(rearrange(pictures, "b h w c -> b c h w"), "the new video")
        for key, picture in zip(batch, pictures, strict=True):
            stop_if_cancelled()
            target.add_frame(TimedFrame(key.time, picture))


def interpolate_parts(run: Interpolator, keys: Iterable[Key], progress: WindowProgress) -> Iterator[Key]:
    """Yield the given frames and the new ones between them, in order.

    Args:
        run: model and settings.
        keys: the given frames.
        progress: counts the windows.

    Raises:
        ValueError: one frame, or texts for single frames.
    """
    for name in ("positive", "negative"):
        require_single(getattr(run.settings, name), name, "MicroCinema Interpolate Long Video")
    pairs = run.shape.pairs
    length, noise, first = WINDOWS * pairs, PartNoise(run), 0
    held: list[Key] = []
    for key in keys:
        held.append(key)
        if len(held) > length + pairs:  # what is left for the last part is one whole window at least
            yield from _part(run, held[: length + 1], progress, noise.at(first))[:-1]
            held, first = held[length:], first + length
    if len(held) < 2:
        raise _too_short(len(held))
    yield from _part(run, held, progress, noise.at(first))


class PartNoise:
    """The noise of a video's parts, by a frame's place in the whole video.

    Args:
        run: the settings, whose seed starts it.
    """

    def __init__(self, run: Interpolator) -> None:
        self.run = run
        self.rounds: dict[int, tsr.NoiseStream] = {}

    def at(self, key: int) -> tsr.Noise:
        """Return the noise, as `tsr.interpolate` takes it, of the part that begins with this given frame."""

        def of_round(round_: int, frames: int, shape: tuple[int, ...]) -> Tensor:
            if round_ not in self.rounds:
                self.rounds[round_] = tsr.NoiseStream(self.run.settings.seed, round_, shape)
            return self.rounds[round_](key * self.run.shape.factor ** (round_ + 1), frames)

        return of_round


def _part(run: Interpolator, keys: list[Key], progress: WindowProgress, noise: tsr.Noise) -> list[Key]:
    """Return the frames of one part, its given ones included."""
    made = run(torch.stack([key.latents for key in keys]), progress, noise=noise)
    times = [
        before.time + (after.time - before.time) * step / run.stride
        for before, after in pairwise(keys)
        for step in range(run.stride)
    ]
    return [Key(time, latents) for time, latents in zip([*times, keys[-1].time], made, strict=True)]


def _encoded(run: Interpolator, vae: Any, batch: Sequence[TimedFrame], longer_side: int) -> Tensor:
    """Return the latents `b c h w` of frames of one size."""
    stop_if_cancelled()
    pictures = rearrange(torch.stack([frame.picture for frame in batch]), "b h w c -> b c h w")
    height, width = _new_sides(pictures.shape[-2], pictures.shape[-1], longer_side)
    latents = vae.encode(rearrange(resize(pictures, height=height, width=width), "b c h w -> b h w c"))
    return run.checked({"samples": latents}, "vae")


def new_size(source: VideoSource, longer_side: int) -> tuple[int, int]:
    """Return height and width of the new video, for which one frame of the source is read.

    Raises:
        ValueError: a video without frames.
    """
    first = next(source.frames(lambda sound: None), None)
    if first is None:
        raise _too_short(0)
    height, width, _ = first.picture.shape
    return _new_sides(height, width, longer_side)


def _new_sides(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Return the sides of the new video: multiples of 8, and at least `SMALLEST_SIDE`."""
    scale = longer_side / max(height, width) if longer_side else 1.0
    smallest = SMALLEST_SIDE // SIZE_STEP
    made = (max(smallest, round(side * scale / SIZE_STEP)) * SIZE_STEP for side in (height, width))
    return next(made), next(made)


def _too_short(frames: int) -> ValueError:
    counted = "1 frame" if frames == 1 else f"{frames} frames"
    return ValueError(f"video has {counted}; at least 2 were expected, for frames between them.")


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield the items, so many at once as are encoded or decoded together."""
    iterator = iter(items)
    while batch := list(islice(iterator, PICTURES)):
        yield batch
