"""A video file read frame by frame; it is never in memory as a whole.

Times are those that the file stores, so that variable frame rates keep in step with the sound (`sound_track`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..messages import reason
from .centre_frame import resize
from .orientation import shown_upright

log = logging.getLogger(__name__)

OPEN_OPTIONS = {"protocol_whitelist": "file"}
"""FFmpeg's own: a file that is a playlist in truth must not reach the network."""
_USUAL_RATE = 25
"""Frame rate of a file that states none."""
Sound = Callable[[Any], None]
"""Takes a packet of PyAV, or a frame of sound."""


class TimedFrame(NamedTuple):
    """A frame `h w 3` in [0, 1], and its time in seconds from the start."""

    time: Fraction
    picture: Tensor


class VideoSource(Protocol):
    """What a video is made from.

    Attributes:
        sound: PyAV's stream or a `SoundFormat`; None without sound.
        origin: the sound's time in seconds at which the first frame is shown.
    """

    sound: Any
    origin: Fraction

    @property
    def rate(self) -> Fraction:
        """The average frame rate."""

    @property
    def time_base(self) -> Fraction:
        """The unit of the frames' times, in seconds."""

    @property
    def expected_frames(self) -> int:
        """The number of frames, or a guess."""

    def frames(self, on_sound: Sound) -> Iterator[TimedFrame]:
        """Yield the frames; the sound goes to `on_sound`."""


class VideoReader:
    """A video file's frames in order, and the packets of its sound.

    Args:
        container: PyAV's, open for reading.
        start: seconds that are left out at the beginning.
        duration: seconds to read; 0 reads to the end.

    Raises:
        ValueError: a file without a video stream, or whose codec is unknown here.
    """

    def __init__(self, container: Any, *, start: float = 0.0, duration: float = 0.0) -> None:
        import av

        covers = av.stream.Disposition.attached_pic
        found = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not found or found[0].codec_context is None:
            raise ValueError("video has no video stream that can be decoded here: choose another file.")
        self.container, self.video = container, found[0]
        self.sound = next((one for one in container.streams.audio if one.codec_context is not None), None)
        self.start, self.end = start, start + duration if duration else None
        self.origin = Fraction(start) if start else Fraction(container.start_time or 0, av.time_base)

    @property
    def rate(self) -> Fraction:
        """The average frame rate."""
        return Fraction(self.video.average_rate or self.video.guessed_rate or _USUAL_RATE)

    @property
    def expected_frames(self) -> int:
        """The number of frames that the file's header states; a guess, at least 2."""
        import av

        whole = float(self.container.duration or 0) / av.time_base
        seconds = min(whole, self.end or whole) - self.start
        stated = 0 if self.start or self.end else self.video.frames
        return max(2, stated or round(seconds * float(self.rate)))

    @property
    def time_base(self) -> Fraction:
        """The unit of the frames' times, in seconds."""
        return Fraction(self.video.time_base or Fraction(1, 90000))

    def frames(self, on_sound: Sound) -> Iterator[TimedFrame]:
        """Yield the frames, upright, in RGB and of the first one's size; packets of the sound go to `on_sound`.

        Frames without a later time than the one before are left out. A file that cannot be decoded to its end is read
        up to there, with a warning in the log.

        Raises:
            ValueError: a file of which nothing can be decoded.
        """
        import av

        if self.start:
            self.container.seek(int(self.start * av.time_base))
        last, size = None, None
        for found in self._decoded():
            if isinstance(found, av.Packet):
                if found.dts is not None and self._within(found):
                    on_sound(found)
                continue
            if found.pts is None or (last is not None and found.pts <= last):
                continue
            if self.end is not None and found.pts * found.time_base >= self.end:
                return
            if not self.start or found.pts * found.time_base >= self.start:
                last, picture = found.pts, _upright(found)
                size = size or picture.shape
                yield TimedFrame(found.pts * found.time_base - self.origin, _of_size(picture, *size[:2]))

    def _decoded(self) -> Iterator[Any]:
        """Yield frames of the video and packets of the sound, up to where decoding fails."""
        import av

        last = None
        try:
            for packet in self.container.demux(*filter(None, (self.video, self.sound))):
                if self.sound is not None and packet.stream.index == self.sound.index:
                    yield packet
                    continue
                for frame in packet.decode():
                    last = last if frame.pts is None else frame.pts * frame.time_base
                    yield frame
        except av.FFmpegError as error:
            if last is None:
                raise ValueError(f"video cannot be decoded: {reason(error)}.") from error
            log.warning(
                "MicroCinema: decoding of the video stops at %.2f s (%s); the part before that is used.",
                float(last),
                reason(error),
            )

    def _within(self, packet: Any) -> bool:
        time = packet.dts * packet.time_base
        return (not self.start or time >= self.start) and (self.end is None or time < self.end)


def _upright(frame: Any) -> Tensor:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    array = shown_upright(frame.to_ndarray(format="rgb24"), None if matrix is None else bytes(matrix))
    return torch.from_numpy(np.ascontiguousarray(array)).float() / 255


def _of_size(picture: Tensor, height: int, width: int) -> Tensor:
    """Return a picture `h w 3` in the size of a file's first frame, where a file changes it."""
    if picture.shape[:2] == (height, width):
        return picture
    resized = resize(rearrange(picture, "h w c -> 1 c h w"), height=height, width=width)
    return rearrange(resized, "1 c h w -> h w c")


@contextmanager
def open_video(file: Any, *, start: float = 0.0, duration: float = 0.0) -> Iterator[VideoReader]:
    """Open a video.

    Args:
        file: a path, or an open binary file.
        start, duration: as for `VideoReader`.

    Raises:
        ValueError: a file that PyAV cannot open, or as for `VideoReader`.
    """
    import av

    try:
        container = av.open(file, options=OPEN_OPTIONS, metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"video cannot be opened: {reason(error)}.") from error
    with container:
        yield VideoReader(container, start=start, duration=duration)
