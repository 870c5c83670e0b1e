"""A video read frame by frame, and one written as its frames are made: neither is ever in memory as a whole.

The sound is copied as it is. Times are those that the file stores, so that variable frame rates keep in step with it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..messages import reason
from .rates import frame_rate

log = logging.getLogger(__name__)

OPEN_OPTIONS = {"protocol_whitelist": "file"}
"""FFmpeg's own: a file that is a playlist in truth must not reach the network."""
BT709 = 1
"""FFmpeg's number of the colours that players expect of high definition: primaries, transfer and matrix."""
LIMITED_RANGE = 1
_USUAL_RATE = 25
"""Frame rate of a file that states none."""
_LARGEST = 2**31 - 1
Sound = Callable[[Any], None]
"""Takes a packet of PyAV."""


class TimedFrame(NamedTuple):
    """A frame `h w 3` in [0, 1], and its time in seconds from the start."""

    time: Fraction
    picture: Tensor


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

    def frames(self, on_sound: Sound) -> Iterator[TimedFrame]:
        """Yield the frames, upright and in RGB; packets of the sound go to `on_sound` as they come.

        Frames without a later time than the one before are left out. A file that cannot be decoded to its end is read
        up to there, with a warning in the log.
        """
        import av

        if self.start:
            self.container.seek(int(self.start * av.time_base))
        last = None
        try:
            for packet in self.container.demux(*filter(None, (self.video, self.sound))):
                if self.sound is not None and packet.stream.index == self.sound.index:
                    if packet.dts is not None and self._within(packet):
                        on_sound(packet)
                    continue
                for frame in packet.decode():
                    if frame.pts is None or (last is not None and frame.pts <= last):
                        continue
                    if self.end is not None and frame.pts * frame.time_base >= self.end:
                        return
                    if not self.start or frame.pts * frame.time_base >= self.start:
                        last = frame.pts
                        yield TimedFrame(frame.pts * frame.time_base - self.origin, _upright(frame))
        except av.FFmpegError as error:
            if last is None:
                raise ValueError(f"video cannot be decoded: {reason(error)}.") from error
            seconds = float(last * self.video.time_base)
            log.warning(
                "MicroCinema: decoding of the video stops at %.2f s (%s); the part before that is used.",
                seconds,
                reason(error),
            )

    def _within(self, packet: Any) -> bool:
        time = packet.dts * packet.time_base
        return (not self.start or time >= self.start) and (self.end is None or time < self.end)


def _upright(frame: Any) -> Tensor:
    array = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
    return torch.from_numpy(np.ascontiguousarray(array)).float() / 255


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


class VideoWriter:
    """Writes an MP4 (H.264) as its frames come, with the sound of the video that it was made from.

    Args:
        path: the file.
        source: that video.
        factor: how many times as many frames there are.
        metadata: what to store in the file; values are written as JSON.
    """

    def __init__(
        self, path: Path, source: VideoReader, factor: int, metadata: Mapping[str, Any] | None
    ) -> None:
        import av

        options = {"movflags": "use_metadata_tags+faststart"}
        self.container = av.open(str(path), mode="w", format="mp4", options=options)
        for key, value in (metadata or {}).items():
            self.container.metadata[key] = json.dumps(value)
        self.source, self.rate = source, frame_rate(float(source.rate * factor))
        exact = (source.video.time_base or Fraction(1, 90000)) / factor
        self.time_base = exact if exact.denominator <= _LARGEST else Fraction(1, 1_000_000)
        self.video: Any = None
        self.sound: Any = None
        self.resampler: Any = None
        self.waiting: list[Any] = []

    def add_frame(self, frame: TimedFrame) -> None:
        """Encode a frame. All have one size, and even sides, which H.264 with 4:2:0 chroma needs."""
        import av

        if self.video is None:
            self._begin(*frame.picture.shape[:2])
        array = frame.picture.mul(255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        rgb = av.VideoFrame.from_ndarray(array, format="rgb24")
        encoded = rgb.reformat(format="yuv420p", dst_colorspace=BT709)
        encoded.colorspace, encoded.color_range = BT709, LIMITED_RANGE
        encoded.time_base, encoded.pts = self.time_base, round(frame.time / self.time_base)
        self._mux(self.video.encode(encoded))

    def add_sound(self, packet: Any) -> None:
        """Copy a packet of the source's sound; packets that come before the first frame wait for it."""
        if self.video is None:
            self.waiting.append(packet)
            return
        shift = round(self.source.origin / packet.time_base)
        packet.dts -= shift
        packet.pts = packet.dts if packet.pts is None else packet.pts - shift
        if self.resampler is None:
            packet.stream = self.sound
            self.container.mux(packet)
        else:
            for decoded in packet.decode():
                self._encode_sound(decoded)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Write what the encoders still hold, and the file's index; after an error, only close the file."""
        try:
            if error is None and self.video is not None:
                if self.resampler is not None:
                    self._encode_sound(None)
                    self.container.mux(self.sound.encode(None))
                self._mux(self.video.encode(None))
        finally:
            self.container.close()

    def _mux(self, packets: list[Any]) -> None:
        """Write packets of the video, each with the duration of a frame, which players take for the last one."""
        for packet in packets:
            packet.duration = round(1 / self.rate / self.time_base)
            self.container.mux(packet)

    def _begin(self, height: int, width: int) -> None:
        """Add the streams, whose order is that of the file, and write the sound that waits."""
        import av

        self.video = self.container.add_stream("h264", rate=self.rate)
        self.video.width, self.video.height, self.video.pix_fmt = width, height, "yuv420p"
        context = self.video.codec_context
        context.time_base = self.time_base
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED_RANGE
        given = self.source.sound
        if given is not None and given.codec_context.name in self.container.supported_codecs:
            self.sound = self.container.add_stream_from_template(given)
        elif given is not None:
            self.sound = self.container.add_stream("aac", rate=given.rate)
            layout = "mono" if given.channels == 1 else "stereo"
            self.sound.codec_context.layout = layout
            self.resampler = av.AudioResampler(format="fltp", layout=layout, rate=given.rate)
        waiting, self.waiting = self.waiting, []
        for packet in waiting:
            self.add_sound(packet)

    def _encode_sound(self, decoded: Any) -> None:
        for part in self.resampler.resample(decoded):
            self.container.mux(self.sound.encode(part))
