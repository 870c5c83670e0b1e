"""Decode videos with PyAV. Times are the pts that the stream stores, never computed from a frame count.

A video is decoded twice: `survey` reads all frames at thumbnail size for times and scene changes, then `frames_at`
reads the few frames of each clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...frames.centre_frame import centre_crop, to_rgb
from ...messages import reason
from .report import Unusable
from .sources import Video

THUMBNAIL = (48, 48)
"""Width and height at which scene changes are measured; the aspect does not matter for that."""

SEEK_AFTER = 10.0
"""Clips that start later than this, in seconds, are reached by seeking instead of decoding from the start."""

MAX_PIXELS = 1 << 26
"""Largest frame that is accepted."""

OPEN_OPTIONS = {"protocol_whitelist": "file"}
"""FFmpeg's own: a file that is a playlist in truth must not reach the network."""


@dataclass(frozen=True)
class Survey:
    """What one pass over a video found.

    Attributes:
        times: seconds since the first frame, increasing, shape `n`.
        pts: the stream's own timestamps, shape `n`.
        changes: mean absolute difference to the previous frame, 0 to 1 (0 for the first), shape `n`.
        width: width as displayed, with rotation applied.
        height: height as displayed, with rotation applied.
        note: why the rest of the video could not be used, or "".
    """

    times: np.ndarray
    pts: np.ndarray
    changes: np.ndarray
    width: int
    height: int
    note: str = ""


@contextmanager
def open_video(video: Video) -> Iterator[tuple[Any, Any]]:
    """Yield PyAV's container and its first video stream that is no cover picture.

    Raises:
        Unusable: the file is empty, PyAV cannot open it, it has no video stream, or it makes a library fail in any
            way within this context.
    """
    import av

    try:
        if (video.size if video.offset >= 0 else video.path.stat().st_size) == 0:
            raise Unusable("the file is empty (0 bytes)")
        # Titles in any encoding: PyAV 19 takes them as they are, older versions must be told to.
        lenient: dict[str, Any] = (
            {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
        )
        with av.open(video.open(), options=OPEN_OPTIONS, **lenient) as container:
            covers = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & covers]
            if not streams:
                kinds = sorted({stream.type for stream in container.streams})
                raise Unusable(f"it has no video stream (it holds: {', '.join(kinds) or 'nothing'})")
            stream = streams[0]
            if stream.codec_context is None:
                raise Unusable("this build of PyAV does not know its video codec")
            stream.codec_context.thread_count = 1  # workers process different videos in parallel
            yield container, stream
    except Unusable:
        raise
    except (av.FFmpegError, OSError) as error:
        raise Unusable(f"it cannot be decoded: {reason(error)}") from error
    except Exception as error:  # one odd file must not take the others of its unit along
        raise Unusable(f"it cannot be decoded ({type(error).__name__}: {reason(error)})") from error


def survey(video: Video) -> Survey:
    """Read the times and scene changes of all frames.

    A video that stops decoding half-way is used up to that point, with a note.

    Raises:
        Unusable: it cannot be opened, or has fewer than two frames with a timestamp.
    """
    pts: list[int] = []
    changes: list[float] = []
    broken: list[str] = []
    note, shape, scale, before = "", (0, 0), 0.0, None
    with open_video(video) as (container, stream):
        for frame in _decoded(container, stream, broken):
            if frame.pts is None or (pts and frame.pts <= pts[-1]):
                continue
            if not shape[0]:
                shape, scale = _display_size(frame), float(frame.time_base)
            thumb = _thumbnail(frame)
            changes.append(0.0 if before is None else float(np.abs(thumb - before).mean()))
            pts.append(frame.pts)
            before = thumb
    if len(pts) < 2:
        why = f": {broken[0]}" if broken else ""
        raise Unusable(f"it has {len(pts)} frames with a timestamp of their own; at least 2 are needed{why}")
    times = (np.array(pts, dtype=np.int64) - pts[0]) * scale
    if broken:
        note = f"decoding stops at {times[-1]:.2f} s ({broken[0]}); the part before that is used"
    return Survey(times, np.array(pts, dtype=np.int64), np.array(changes), *shape, note)


def _decoded(container: Any, stream: Any, broken: list[str]) -> Iterator[Any]:
    """Yield frames until the end or the first error, which is appended to `broken`; damaged frames are dropped."""
    import av

    try:
        for frame in container.decode(stream):
            if frame.width * frame.height > MAX_PIXELS:
                raise Unusable(
                    f"its frames are {frame.width}x{frame.height}; at most {MAX_PIXELS} pixels are accepted"
                )
            if not frame.is_corrupt:
                yield frame
    except av.FFmpegError as error:
        broken.append(reason(error))


def _display_size(frame: Any) -> tuple[int, int]:
    """Return width and height after rotation."""
    size = frame.width, frame.height
    return size if _quarter_turns(frame) % 2 == 0 else (size[1], size[0])


def _quarter_turns(frame: Any) -> int:
    """Return the counter-clockwise quarter turns of the file's rotation flag."""
    return round(frame.rotation / 90) % 4


def _thumbnail(frame: Any) -> np.ndarray:
    small = frame.reformat(*THUMBNAIL, format="rgb24", interpolation="AREA")
    return small.to_ndarray().astype(np.float32) / 255


def frames_at(video: Video, pts: Sequence[int], *, size: tuple[int, int]) -> Tensor:
    """Read the frames with the given pts as uint8 `n 3 height width`, rotated, cropped and resized.

    Args:
        video: the video to read.
        pts: timestamps, increasing.
        size: width and height. Frames are cropped around the centre to this aspect, then resized.

    Raises:
        Unusable: a frame was not found again.
    """
    wanted = {int(value): place for place, value in enumerate(pts)}
    found = _collect(video, wanted, size, seek=True)
    if len(found) < len(wanted):
        found |= _collect(video, wanted, size, seek=False)  # the file's seek index may be wrong
    if len(found) < len(wanted):
        raise Unusable(f"{len(wanted) - len(found)} of {len(wanted)} frames were not found a second time")
    return torch.stack([found[place] for place in range(len(wanted))])


def _collect(video: Video, wanted: dict[int, int], size: tuple[int, int], *, seek: bool) -> dict[int, Tensor]:
    first, last = min(wanted), max(wanted)
    found: dict[int, Tensor] = {}
    with open_video(video) as (container, stream):
        if seek and first * float(stream.time_base or 0) > SEEK_AFTER:
            container.seek(first, stream=stream, backward=True)
        for frame in _decoded(container, stream, []):
            if frame.pts in wanted:
                found[wanted[frame.pts]] = frame_to_tensor(frame, size)
            if frame.pts is not None and frame.pts >= last:
                break
    return found


def frame_to_tensor(frame: Any, size: tuple[int, int]) -> Tensor:
    """Convert a decoded frame to uint8 `3 height width`, upright, with transparency over white as in the nodes.

    The crop is the one that the nodes apply to a centre frame. The resize is torch's antialiased bicubic on bytes
    (Pillow's filter) instead of the nodes' own, which takes a hundred times as long: too long for millions of clips.
    """
    kind = "rgba" if any(part.is_alpha for part in frame.format.components) else "rgb24"
    array = np.rot90(frame.to_ndarray(format=kind), _quarter_turns(frame))
    whole = rearrange(torch.from_numpy(np.ascontiguousarray(array)), "h w c -> 1 c h w")
    width, height = size
    cropped = centre_crop(whole, aspect=width / height)
    if kind == "rgba":
        cropped = (to_rgb(cropped.float() / 255) * 255).round().to(torch.uint8)
    return F.interpolate(cropped, size=(height, width), mode="bicubic", antialias=True)[0]
