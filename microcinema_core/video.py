"""From frames to a clip: joining segments, keeping the centre frame's colours, playing back and forth.

The paper's cascade makes key frames, then the frames between them (section 3.1); longer videos are chains of
such segments. What is done to finished frames is this project's own choice and stands here. Frames are
`(f, c, h, w)` with values 0 to 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from .centre_frame import plain_rgb

_MAX_DENOMINATOR = 1001


def centre_index(frames: int) -> int:
    """Index of the centre frame of a clip: N // 2 (4 of 9, 64 of 129)."""
    return frames // 2


def frame_rate(fps: float) -> Fraction:
    """The exact rate for `fps` frames a second (23.976 is 2997/125). Raises ValueError unless above 0."""
    if not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"fps must be a number above 0, but {fps} was given.")
    return Fraction(fps).limit_denominator(_MAX_DENOMINATOR)


def combine(
    segments: Mapping[str, Tensor],
    *,
    cross_fade: int = 0,
    colour_strength: float = 0.0,
    colour_anchor: Tensor | None = None,
    ping_pong: bool = False,
    repeat: int = 1,
) -> Tensor:
    """Everything below in its order: join, match colours, play. Gives RGB frames `(f, 3, h, w)`.

    `segments` maps each segment's name, for errors, to its frames of 1 to 4 channels. Colours are matched to
    the first picture of `colour_anchor`, or else to the centre frame of the first segment.
    """
    plain = {name: plain_rgb(frames, name) for name, frames in segments.items()}
    clip = join_segments(plain, cross_fade=cross_fade)
    if colour_strength:
        first = next(iter(plain.values()))
        centre = first[centre_index(len(first))][None]
        anchor = centre if colour_anchor is None else plain_rgb(colour_anchor[:1], "colour_anchor")
        clip = match_colours(clip, anchor, strength=colour_strength)
    return play(clip, ping_pong=ping_pong, repeat=repeat)


def join_segments(segments: Mapping[str, Tensor], *, cross_fade: int = 0) -> Tensor:
    """Join named segments `(f_i, c, h, w)` into one clip.

    With `cross_fade` 0 every frame of every segment is kept. With k > 0 the last k frames of each blend into
    the first k of the next, so the clip is k frames shorter per join; 1 is right for segments that share a
    border frame: it then appears once. Raises ValueError for unequal sizes and too short segments.
    """
    _check_segments(segments, cross_fade)
    return functools.reduce(lambda before, after: _cross_fade(before, after, cross_fade), segments.values())


def _check_segments(segments: Mapping[str, Tensor], cross_fade: int) -> None:
    if cross_fade < 0:
        raise ValueError(f"cross_fade is a number of frames, 0 or more, but {cross_fade} was given.")
    first, *others = segments
    height, width = segments[first].shape[-2:]
    for name in others:
        if segments[name].shape[-2:] != (height, width):
            raise ValueError(
                f"Frames to be joined must be of one size, but {first} is {width} x {height} and {name} is "
                f"{segments[name].shape[-1]} x {segments[name].shape[-2]}. Resize one of them."
            )
    for place, (name, frames) in enumerate(segments.items()):
        fades = (place > 0) + (place < len(others))
        if fades * cross_fade > len(frames):
            raise ValueError(
                f"A cross_fade of {cross_fade} takes {fades * cross_fade} frames of {name}, which has "
                f"{len(frames)}. Use at most {len(frames) // fades}."
            )


def _cross_fade(before: Tensor, after: Tensor, count: int) -> Tensor:
    if not count:
        return torch.cat([before, after])
    weight = torch.linspace(0, 1, count + 2, dtype=before.dtype, device=before.device)[1:-1]
    blended = torch.lerp(before[-count:], after[:count], rearrange(weight, "f -> f 1 1 1"))
    return torch.cat([before[:-count], blended, after[count:]])


def match_colours(frames: Tensor, anchor: Tensor, *, strength: float) -> Tensor:
    """Give each frame `(f, c, h, w)` the mean and deviation per channel of `anchor` `(1, c, h', w')`.

    `strength` 0 leaves the frames alone, 1 matches fully; between, the pixels are mixed. A channel without
    contrast in a frame only takes the mean. Values are clipped to 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"The colour strength is a number from 0 to 1, but {strength} was given.")
    if strength == 0:
        return frames
    mean, deviation = _colour_statistics(frames)
    anchor_mean, anchor_deviation = _colour_statistics(anchor)
    gain = torch.where(
        deviation > 1e-4, anchor_deviation / deviation.clamp(min=1e-4), torch.ones_like(deviation)
    )
    matched = (frames - mean) * gain + anchor_mean
    return torch.lerp(frames, matched, strength).clamp(0, 1)


def _colour_statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    mean = reduce(frames, "f c h w -> f c 1 1", "mean")
    return mean, reduce((frames - mean) ** 2, "f c h w -> f c 1 1", "mean").sqrt()


def play(frames: Tensor, *, ping_pong: bool = False, repeat: int = 1) -> Tensor:
    """The clip as it is played: forwards and back if `ping_pong`, all of it `repeat` times.

    The turning frames are not doubled: n frames become 2n - 2 back and forth, which repeat without a stutter.
    """
    if repeat < 1:
        raise ValueError(f"repeat is how often the clip is played, 1 or more, but {repeat} was given.")
    if ping_pong:
        frames = torch.cat([frames, frames[1:-1].flip(0)])
    return frames if repeat == 1 else frames.repeat(repeat, 1, 1, 1)


def check_audio(audio: Mapping[str, Any]) -> dict[str, Any] | None:
    """The host's AUDIO as its video writer takes it: the first of the batch, mono or stereo; None if empty.

    `waveform` is `(b, channels, samples)`. More than two channels become their mean.
    """
    waveform = audio["waveform"][:1]
    if not waveform.numel():
        return None
    if waveform.shape[1] > 2:
        waveform = waveform.mean(dim=1, keepdim=True)
    return {"waveform": waveform, "sample_rate": int(audio["sample_rate"])}


def pad_to_even(frames: Tensor) -> Tensor:
    """Double the last row or column of frames with an odd side: H.264 in 4:2:0 knows even sizes only."""
    height, width = frames.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return frames
    return F.pad(frames, (0, width % 2, 0, height % 2), mode="replicate")


def write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Let `write` fill a file beside `path` and move it there when it is whole; a failure leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        write(str(unfinished))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
