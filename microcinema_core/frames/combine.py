"""From frames to a clip: joining segments, keeping the centre frame's colours, playing back and forth.

The paper's cascade makes key frames, then the frames between them (section 3.1); longer videos are chains of
such segments. What is done to finished frames is this project's own choice and stands here. Frames are
`(f, c, h, w)` with values 0 to 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .centre_frame import plain_rgb
from .colour import colour_drift, match_colours

_MAX_DENOMINATOR = 1001


def centre_index(frames: int) -> int:
    """Index of the centre frame of a clip: N // 2 (4 of 9, 64 of 129)."""
    return frames // 2


def frame_rate(fps: float) -> Fraction:
    """The exact rate for `fps` frames a second (23.976 is 2997/125). Raises ValueError unless above 0."""
    if not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"fps must be a number above 0, but {fps} was given.")
    return Fraction(fps).limit_denominator(_MAX_DENOMINATOR)


class Clip(NamedTuple):
    """Frames as they are played, and how far their colours are from the anchor's."""

    frames: Tensor
    """RGB, `(f, 3, h, w)`."""
    drift: Tensor
    """Distance in L*a*b* of each joined frame's mean colour from the anchor's, as the frames were given."""
    drift_left: Tensor
    """The same in the clip that is played; equal to `drift` with a colour strength of 0."""


def combine(
    segments: Mapping[str, Tensor],
    *,
    skip_shared: bool = False,
    cross_fade: int = 0,
    loop: bool = False,
    colour_strength: float = 0.0,
    colour_anchor: Tensor | None = None,
    ping_pong: bool = False,
    repeat: int = 1,
) -> Clip:
    """Everything below in its order: join, close the loop, match colours, play.

    `segments` maps each segment's name, for errors, to its frames of 1 to 4 channels. Colours are matched to
    the first picture of `colour_anchor`, or else to the centre frame of the first segment. A clip that goes back and
    forth ends where it began, so `ping_pong` leaves nothing for `loop` to do.
    """
    plain = {name: plain_rgb(frames, name) for name, frames in segments.items()}
    first = next(iter(plain.values()))
    centre = first[centre_index(len(first))][None]
    anchor = centre if colour_anchor is None else plain_rgb(colour_anchor[:1], "colour_anchor")
    clip = join_segments(plain, skip_shared=skip_shared, cross_fade=cross_fade)
    if loop and not ping_pong:
        clip = close_loop(clip, skip_shared=skip_shared, cross_fade=cross_fade)
    drift = drift_left = colour_drift(clip, anchor)
    if colour_strength:
        clip = match_colours(clip, anchor, strength=colour_strength)
        drift_left = colour_drift(clip, anchor)
    return Clip(play(clip, ping_pong=ping_pong, repeat=repeat), drift, drift_left)


def join_segments(
    segments: Mapping[str, Tensor], *, skip_shared: bool = False, cross_fade: int = 0
) -> Tensor:
    """Join named segments `(f_i, c, h, w)` into one clip.

    With `skip_shared` the first frame of each but the first is left out: right for segments that begin with the last
    frame of the one before. With `cross_fade` 0 every other frame is kept; with k > 0 the last k frames of each blend
    into the first k of the next, so the clip is k frames shorter per join. Raises ValueError for unequal sizes and
    too short segments.
    """
    if skip_shared:
        segments = _without_shared(segments)
    _check_segments(segments, cross_fade)
    return functools.reduce(lambda before, after: _cross_fade(before, after, cross_fade), segments.values())


def close_loop(clip: Tensor, *, skip_shared: bool = False, cross_fade: int = 0) -> Tensor:
    """Join a clip's end to its own beginning, as `join_segments` joins two segments, so that it repeats smoothly.

    With `skip_shared` its last frame, the first one again, is left out; its last `cross_fade` frames blend into the
    first ones. Raises ValueError where the clip is too short for that.
    """
    clip = clip[: len(clip) - skip_shared]
    if 2 * cross_fade > len(clip) or not len(clip):
        raise ValueError(
            f"A loop with a cross_fade of {cross_fade} needs {max(1, 2 * cross_fade)} frames or more, but the clip "
            f"has {len(clip)}. Use at most {len(clip) // 2}."
        )
    if not cross_fade:
        return clip
    blended = _blend(clip[-cross_fade:], clip[:cross_fade])
    return torch.cat([blended, clip[cross_fade:-cross_fade]])


def _without_shared(segments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    first, *others = segments
    for name in others:
        if len(segments[name]) < 2:
            raise ValueError(
                f"{name} has one frame, and skip_shared leaves out the first of each further segment, so nothing of "
                "it would be left. Give more frames, or turn skip_shared off."
            )
    return {name: frames if name == first else frames[1:] for name, frames in segments.items()}


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
    return torch.cat([before[:-count], _blend(before[-count:], after[:count]), after[count:]])


def _blend(before: Tensor, after: Tensor) -> Tensor:
    """From the one to the other in even steps, neither of them pure."""
    weight = torch.linspace(0, 1, len(before) + 2, dtype=before.dtype, device=before.device)[1:-1]
    return torch.lerp(before, after, rearrange(weight, "f -> f 1 1 1"))


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


def describe(clip: Clip, fps: float) -> str:
    """One line for the user: how many frames, how long, and how far the colours are from the anchor's."""
    count = len(clip.frames)
    line = f"{count} frames at {fps:g} a second: {float(count / frame_rate(fps)):.3f} s. "
    line += f"Colour drift from the anchor: {_drift_words(clip.drift)}"
    if not torch.equal(clip.drift, clip.drift_left):
        line += f"; after correction {_drift_words(clip.drift_left)}"
    return line + "."


def _drift_words(drift: Tensor) -> str:
    return f"{drift.mean():.1f} on average, {drift.max():.1f} at most (frame {int(drift.argmax())})"
