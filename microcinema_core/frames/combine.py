"""From frames to a video: joining segments, closing a loop, matching colours, playback order.

The paper's cascade makes key frames, then the frames between them (section 3.1). Longer videos are chains of such
segments. The paper does not say how to join them; this module does. Frames are `f c h w` in [0, 1].
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..config import centre_index
from .centre_frame import checked_rgb
from .colour import colour_drift, match_colours
from .rates import frame_rate


class CombinedVideo(NamedTuple):
    """Frames in playback order, and how far their colours are from the anchor's.

    Attributes:
        frames: RGB `f 3 h w` in [0, 1].
        drift: L*a*b* distance of each joined frame's mean colour from the anchor's, before correction.
        remaining_drift: the same after correction; equal to `drift` if the colour strength is 0.
    """

    frames: Tensor
    drift: Tensor
    remaining_drift: Tensor


def combine_frames(
    segments: Mapping[str, Tensor],
    *,
    skip_shared: bool = False,
    cross_fade: int = 0,
    loop: bool = False,
    every: int = 1,
    colour_strength: float = 0.0,
    colour_anchor: Tensor | None = None,
    ping_pong: bool = False,
    repeat: int = 1,
) -> CombinedVideo:
    """Join segments, close the loop, match colours and put the frames into playback order.

    Args:
        segments: frames `f c h w` of 1 to 4 channels by the segment's name, which error messages use.
        skip_shared: leave out the first frame of every segment but the first (`join_segments`).
        cross_fade: number of frames that blend at each join.
        loop: join the end to the beginning (`close_loop`). Has no effect with `ping_pong`, which already loops.
        every: keep every nth of the joined frames (`rates.frames_per_kept`).
        colour_strength: strength of `match_colours`.
        colour_anchor: pictures `b c h w`, of which the first is used; by default the first segment's centre frame.
        ping_pong: play forwards, then backwards.
        repeat: number of times that the video is played.

    Raises:
        ValueError: NaN, unequal sizes, segments too short to be joined, or a setting out of range.
    """
    rgb = {name: checked_rgb(frames, name) for name, frames in segments.items()}
    first = next(iter(rgb.values()))
    centre = first[centre_index(len(first))][None]
    anchor = centre if colour_anchor is None else checked_rgb(colour_anchor[:1], "colour_anchor")
    frames = join_segments(rgb, skip_shared=skip_shared, cross_fade=cross_fade)
    if loop and not ping_pong:
        frames = close_loop(frames, skip_shared=skip_shared, cross_fade=cross_fade)
        _require_whole_steps(len(frames), every)
    frames = frames[::every]
    drift = remaining_drift = colour_drift(frames, anchor)
    if colour_strength:
        frames = match_colours(frames, anchor, strength=colour_strength)
        remaining_drift = colour_drift(frames, anchor)
    return CombinedVideo(playback_frames(frames, ping_pong=ping_pong, repeat=repeat), drift, remaining_drift)


def join_segments(
    segments: Mapping[str, Tensor], *, skip_shared: bool = False, cross_fade: int = 0
) -> Tensor:
    """Join named segments `f_i c h w` into one video `f c h w`.

    Args:
        segments: frames by the segment's name.
        skip_shared: leave out the first frame of every segment but the first. Right for segments that begin with
            the last frame of the one before.
        cross_fade: number of frames at the end of a segment that blend into the beginning of the next. The video
            gets shorter by that number at each join; 0 keeps all frames.

    Raises:
        ValueError: unequal sizes, or a segment that is too short.
    """
    if skip_shared:
        segments = _without_shared(segments)
    _check_segments(segments, cross_fade)
    return functools.reduce(lambda before, after: _cross_fade(before, after, cross_fade), segments.values())


def close_loop(frames: Tensor, *, skip_shared: bool = False, cross_fade: int = 0) -> Tensor:
    """Join the end of a video `f c h w` to its beginning, as `join_segments` does, so that it loops smoothly.

    Args:
        frames: the video.
        skip_shared: leave out the last frame. Right for videos that end with their first frame.
        cross_fade: number of frames at the end that blend into the beginning.

    Raises:
        ValueError: too few frames.
    """
    frames = frames[: len(frames) - skip_shared]
    if skip_shared and not len(frames):
        raise ValueError(
            "The clip has one frame, and skip_shared leaves out the last frame of a loop, so nothing would remain of "
            "it. Give more frames, or turn skip_shared off."
        )
    if 2 * cross_fade > len(frames) or not len(frames):
        raise ValueError(
            f"A loop with a cross_fade of {cross_fade} needs {max(1, 2 * cross_fade)} frames or more, but the clip "
            f"has {len(frames)}. Use at most {len(frames) // 2}."
        )
    if not cross_fade:
        return frames
    blended = _blend(frames[-cross_fade:], frames[:cross_fade])
    return torch.cat([blended, frames[cross_fade:-cross_fade]])


def _require_whole_steps(count: int, every: int) -> None:
    """Refuse a loop whose last step, from the last kept frame to the first, would be shorter than the others.

    Raises:
        ValueError: `every` does not divide the number of frames.
    """
    if count % every:
        whole = [str(step) for step in range(1, min(count, 100) + 1) if count % step == 0][:5]
        raise ValueError(
            f"target_fps keeps one of every {every} frames, which does not divide the loop's {count} frames: it would "
            f"jump where it starts again. Use fps divided by {' or '.join(whole)}, or another number of frames."
        )


def _without_shared(segments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    first, *others = segments
    for name in others:
        if len(segments[name]) < 2:
            raise ValueError(
                f"{name} has one frame, and skip_shared leaves out the first frame of each further segment, so "
                "nothing would remain of it. Give more frames, or turn skip_shared off."
            )
    return {name: frames if name == first else frames[1:] for name, frames in segments.items()}


def _check_segments(segments: Mapping[str, Tensor], cross_fade: int) -> None:
    if cross_fade < 0:
        raise ValueError(f"cross_fade must be a number of frames, 0 or more, but {cross_fade} was given.")
    first, *others = segments
    height, width = segments[first].shape[-2:]
    for name in others:
        if segments[name].shape[-2:] != (height, width):
            raise ValueError(
                f"All segments must have the same size, but {first} is {width} x {height} and {name} is "
                f"{segments[name].shape[-1]} x {segments[name].shape[-2]}. Resize one of them."
            )
    for place, (name, frames) in enumerate(segments.items()):
        fades = (place > 0) + (place < len(others))
        if fades * cross_fade > len(frames):
            raise ValueError(
                f"A cross_fade of {cross_fade} needs {fades * cross_fade} frames of {name}, which has "
                f"{len(frames)}. Use at most {len(frames) // fades}."
            )


def _cross_fade(before: Tensor, after: Tensor, count: int) -> Tensor:
    if not count:
        return torch.cat([before, after])
    return torch.cat([before[:-count], _blend(before[-count:], after[:count]), after[count:]])


def _blend(before: Tensor, after: Tensor) -> Tensor:
    """Blend from one to the other in even steps; no frame is purely one of them."""
    weight = torch.linspace(0, 1, len(before) + 2, dtype=before.dtype, device=before.device)[1:-1]
    return torch.lerp(before, after, rearrange(weight, "f -> f 1 1 1"))


def playback_frames(frames: Tensor, *, ping_pong: bool = False, repeat: int = 1) -> Tensor:
    """Put frames `f ...` into playback order: back and forth with `ping_pong`, all of it `repeat` times.

    The frames at the turning points are not doubled: n frames become 2n - 2, which repeat without a stutter. Frames
    that are in this order already come back themselves, without a copy.

    Raises:
        ValueError: `repeat` is below 1.
    """
    if repeat < 1:
        raise ValueError(f"repeat must be a number of times, 1 or more, but {repeat} was given.")
    back = range(len(frames) - 2, 0, -1) if ping_pong else range(0)
    order = [*range(len(frames)), *back] * repeat
    return frames if len(order) == len(frames) else frames[order]


AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Samples per second that the video's audio codec has."""
LOUDEST = 100.0
"""Largest sample that is taken for sound, whose own range is -1 to 1; the codec fails far beyond."""
RATES = 1000, 10_000_000
"""Lowest and highest rate that is taken for sound: a lower one would swell a small waveform to gigabytes."""


def prepare_audio(audio: Mapping[str, Any]) -> dict[str, Any] | None:
    """Convert the host's AUDIO to what its video writer accepts: one mono or stereo track, None if it is empty.

    Of `waveform`, `b channels samples`, the first of the batch is kept. More than two channels become their mean. A
    rate that the codec does not have is resampled to the nearest one.

    Raises:
        ValueError: NaN, infinite or huge samples, another shape, or a rate that is none of sound (`RATES`).
    """
    waveform, rate = audio["waveform"][:1], audio["sample_rate"]
    if waveform.ndim != 3 or not RATES[0] <= rate <= RATES[1]:
        raise ValueError(
            f"audio has a waveform of shape {tuple(waveform.shape)} and {rate} samples a second; "
            f"(1, channels, samples) and a rate from {RATES[0]:,} to {RATES[1]:,} were expected."
        )
    if not waveform.numel():
        return None
    if not bool(torch.isfinite(waveform).all()):
        raise ValueError("audio holds NaN or infinite samples: look at the node that made it.")
    lowest, highest = torch.aminmax(waveform)
    if (peak := max(-float(lowest), float(highest))) > LOUDEST:
        raise ValueError(
            f"audio holds samples of up to {peak:g}; from -1 to 1 were expected: look at the node that made it."
        )
    if waveform.shape[1] > 2:
        waveform = waveform.mean(dim=1, keepdim=True)
    nearest = min(AAC_RATES, key=lambda known: abs(known - rate))
    if nearest != rate:
        waveform = _resampled(waveform[0], int(rate), nearest)[None]
    return {"waveform": waveform, "sample_rate": nearest}


def _resampled(waveform: Tensor, rate: int, wanted: int) -> Tensor:
    """Resample a waveform `channels samples` from one rate to another."""
    import av

    layout = "mono" if len(waveform) == 1 else "stereo"
    samples = waveform.float().cpu().contiguous().numpy()
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=wanted)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return torch.cat([torch.from_numpy(part.to_ndarray()) for part in parts], dim=1)


LONGEST_SIDE = 16384
"""Pixels of a side that the host's H.264 encoder takes (libx264)."""


def pad_to_even(frames: Tensor) -> Tensor:
    """Repeat the last row or column of frames with an odd side: H.264 with 4:2:0 chroma needs even sides.

    Raises:
        ValueError: a side that is longer than the encoder takes.
    """
    height, width = frames.shape[-2:]
    if max(height, width) > LONGEST_SIDE:
        raise ValueError(
            f"images are {width} x {height} pixels, and a video's side has at most {LONGEST_SIDE}: resize them first."
        )
    if height % 2 == 0 and width % 2 == 0:
        return frames
    return F.pad(frames, (0, width % 2, 0, height % 2), mode="replicate")


def describe_video(video: CombinedVideo, fps: float, count: int | None = None) -> str:
    """Return one line for the user: number of frames, duration, colour drift before and after correction.

    Args:
        video: the video.
        fps: its frame rate.
        count: number of frames that are played; None takes those of the video.
    """
    count = len(video.frames) if count is None else count
    line = f"{count} frames at {fps:g} a second: {float(count / frame_rate(fps)):.3f} s. "
    line += f"Colour drift from the anchor: {_drift_text(video.drift)}"
    if not torch.equal(video.drift, video.remaining_drift):
        line += f"; after correction {_drift_text(video.remaining_drift)}"
    return line + "."


def _drift_text(drift: Tensor) -> str:
    return f"{drift.mean():.1f} on average, {drift.max():.1f} at most (frame {int(drift.argmax())})"
