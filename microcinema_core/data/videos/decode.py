"""Videos as frames with their own times: PyAV decodes, and every time is a stored pts, never a count.

A video is decoded twice: `survey` goes through it once, small, for times and scene changes; `frames_at` then gets
the few frames that a clip is made of.
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
from .report import Unusable
from .sources import Video

THUMB = (48, 48)
"""Width and height of what scene changes are seen on; the aspect does not matter there."""

SEEK_AFTER = 10.0
"""Seconds into a video from which on one seeks to a keyframe instead of decoding from its start."""

MOST_PIXELS = 1 << 26


@dataclass(frozen=True)
class Survey:
    """What one pass over a video found.

    times: (n,) seconds since the first frame, increasing. pts: (n,) the stream's own. changes: (n,) mean absolute
    difference to the frame before, 0 to 1 (0 for the first). width, height: as shown, rotation applied.
    note: what was wrong with the part that was not used, or "".
    """

    times: np.ndarray
    pts: np.ndarray
    changes: np.ndarray
    width: int
    height: int
    note: str = ""

    @property
    def seconds(self) -> float:
        return float(self.times[-1])


@contextmanager
def opened(video: Video) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its first real video stream.

    Raises:
        Unusable: not a file that PyAV opens, empty, or without pictures that move.
    """
    import av

    try:
        if (video.size if video.offset >= 0 else video.path.stat().st_size) == 0:
            raise Unusable("the file is empty (0 bytes)")
        with av.open(video.open(), metadata_errors="ignore") as container:
            covers = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & covers]
            if not streams:
                kinds = sorted({stream.type for stream in container.streams})
                raise Unusable(f"it has no video stream (it holds: {', '.join(kinds) or 'nothing'})")
            stream = streams[0]
            if stream.codec_context is None:
                raise Unusable("its video codec is not known to this build of PyAV")
            stream.codec_context.thread_count = 1  # work is spread over videos, not within one
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise Unusable(f"it cannot be decoded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def survey(video: Video) -> Survey:
    """Times and scene changes of all frames.

    A video that breaks off is used up to there, with a note.

    Raises:
        Unusable: it cannot be opened, or has fewer than two frames with times.
    """
    pts: list[int] = []
    changes: list[float] = []
    broken: list[str] = []
    note, shape, scale, before = "", (0, 0), 0.0, None
    with opened(video) as (container, stream):
        for frame in _decoded(container, stream, broken):
            if frame.pts is None or (pts and frame.pts <= pts[-1]):
                continue
            if not shape[0]:
                shape, scale = _shown_size(frame), float(frame.time_base)
            thumb = _thumb(frame)
            changes.append(0.0 if before is None else float(np.abs(thumb - before).mean()))
            pts.append(frame.pts)
            before = thumb
    if len(pts) < 2:
        why = f": {broken[0]}" if broken else ""
        raise Unusable(f"it has {len(pts)} frames with a time of their own; a clip needs more{why}")
    times = (np.array(pts, dtype=np.int64) - pts[0]) * scale
    if broken:
        note = f"decoding stops at {times[-1]:.2f} s ({broken[0]}); what lies before was used"
    return Survey(times, np.array(pts, dtype=np.int64), np.array(changes), *shape, note)


def _decoded(container: Any, stream: Any, broken: list[str]) -> Iterator[Any]:
    """Frames until the end or the first error, which goes to `broken`; damaged frames are left out."""
    import av

    try:
        for frame in container.decode(stream):
            if frame.width * frame.height > MOST_PIXELS:
                raise Unusable(
                    f"its frames are {frame.width}x{frame.height}; at most {MOST_PIXELS} pixels fit"
                )
            if not frame.is_corrupt:
                yield frame
    except av.FFmpegError as error:
        broken.append(_reason(error))


def _shown_size(frame: Any) -> tuple[int, int]:
    """Width and height after rotation."""
    size = frame.width, frame.height
    return size if _turns(frame) % 2 == 0 else (size[1], size[0])


def _turns(frame: Any) -> int:
    """Quarter turns counter-clockwise that the file asks a player for."""
    return round(frame.rotation / 90) % 4


def _thumb(frame: Any) -> np.ndarray:
    small = frame.reformat(*THUMB, format="rgb24", interpolation="AREA")
    return small.to_ndarray().astype(np.float32) / 255


def frames_at(video: Video, pts: Sequence[int], *, size: tuple[int, int]) -> Tensor:
    """Frames of the given pts (increasing) as uint8 (n, 3, height, width), rotated, cropped and resized.

    size: width and height; the shorter side is fitted and the rest cropped around the middle.

    Raises:
        Unusable: they are not there any more.
    """
    wanted = {int(value): place for place, value in enumerate(pts)}
    found = _collect(video, wanted, size, seek=True)
    if len(found) < len(wanted):
        found |= _collect(video, wanted, size, seek=False)  # an index that points to a wrong place
    if len(found) < len(wanted):
        raise Unusable(f"{len(wanted) - len(found)} of {len(wanted)} frames were not found a second time")
    return torch.stack([found[place] for place in range(len(wanted))])


def _collect(video: Video, wanted: dict[int, int], size: tuple[int, int], *, seek: bool) -> dict[int, Tensor]:
    first, last = min(wanted), max(wanted)
    found: dict[int, Tensor] = {}
    with opened(video) as (container, stream):
        if seek and first * float(stream.time_base or 0) > SEEK_AFTER:
            container.seek(first, stream=stream, backward=True)
        for frame in _decoded(container, stream, []):
            if frame.pts in wanted:
                found[wanted[frame.pts]] = picture(frame, size)
            if frame.pts is not None and frame.pts >= last:
                break
    return found


def picture(frame: Any, size: tuple[int, int]) -> Tensor:
    """A decoded frame as uint8 (3, height, width), upright; transparent pixels lie over white, as in the nodes.

    The crop is the centre frame's own. The resize is torch's antialiased bicubic on bytes (Pillow's filter): the nodes'
    takes a hundred times as long, which one picture does not mind but ten million clips do.
    """
    kind = "rgba" if any(part.is_alpha for part in frame.format.components) else "rgb24"
    array = np.rot90(frame.to_ndarray(format=kind), _turns(frame))
    whole = rearrange(torch.from_numpy(np.ascontiguousarray(array)), "h w c -> 1 c h w")
    width, height = size
    cropped = centre_crop(whole, aspect=width / height)
    if kind == "rgba":
        cropped = (to_rgb(cropped.float() / 255) * 255).round().to(torch.uint8)
    return F.interpolate(cropped, size=(height, width), mode="bicubic", antialias=True)[0]
