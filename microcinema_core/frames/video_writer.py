"""A video written as its frames are made, so that it is never in memory as a whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ..messages import reason
from .rates import LOWEST, frame_rate
from .sound_track import SoundTrack
from .video_file import TimedFrame, VideoSource

BT709 = 1
"""FFmpeg's number of the colours that players expect of high definition: primaries, transfer and matrix."""
LIMITED_RANGE = 1
_LARGEST = 2**31 - 1
_HIGHEST = 100_000.0
"""Frames a second that a file can state; times of frames are exact all the same."""


class VideoWriter:
    """Writes an MP4 (H.264) as its frames come, with the sound of the video that it was made from.

    Args:
        path: the file.
        source: that video.
        factor: how many times as many frames there are.
        metadata: what to store in the file; values are written as JSON.

    Raises:
        OSError: the file cannot be written to, here and in every method.
        ValueError: frames or sound that MP4 cannot hold, in every method.
    """

    def __init__(
        self, path: Path, source: VideoSource, factor: int, metadata: Mapping[str, Any] | None
    ) -> None:
        import av

        options = {"movflags": "use_metadata_tags+faststart"}
        self.container = av.open(str(path), mode="w", format="mp4", options=options)
        for key, value in (metadata or {}).items():
            self.container.metadata[key] = json.dumps(value)
        self.source = source
        self.rate = frame_rate(min(max(float(source.rate * factor), LOWEST), _HIGHEST))
        exact = source.time_base / factor
        self.time_base = exact if max(exact.as_integer_ratio()) <= _LARGEST else Fraction(1, 1_000_000)
        self.video: Any = None
        self.sound: SoundTrack | None = None
        self.waiting: list[Any] = []

    def add_frame(self, frame: TimedFrame) -> None:
        """Encode a frame. All have one size, and even sides, which H.264 with 4:2:0 chroma needs."""
        import av

        with _said():
            if self.video is None:
                self._begin(*frame.picture.shape[:2])
            array = frame.picture.mul(255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
            rgb = av.VideoFrame.from_ndarray(array, format="rgb24")
            encoded = rgb.reformat(format="yuv420p", dst_colorspace=BT709)
            encoded.colorspace, encoded.color_range = BT709, LIMITED_RANGE
            encoded.time_base, encoded.pts = self.time_base, round(frame.time / self.time_base)
            self._mux(self.video.encode(encoded))

    def add_sound(self, sound: Any) -> None:
        """Add a packet or a frame of the source's sound; what comes before the first frame waits for it."""
        if self.video is None:
            self.waiting.append(sound)
        elif self.sound is not None:
            with _said():
                self.sound.add(sound)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Write what the encoders still hold, and the file's index; after an error, only close the file."""
        if error is not None:
            with contextlib.suppress(OSError, ValueError), _said():
                self.container.close()
            return
        with _said():
            try:
                if self.sound is not None:
                    self.sound.finish()
                if self.video is not None:
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
        self.video = self.container.add_stream("h264", rate=self.rate)
        self.video.width, self.video.height, self.video.pix_fmt = width, height, "yuv420p"
        context = self.video.codec_context
        context.time_base = self.time_base
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED_RANGE
        if self.source.sound is not None:
            self.sound = SoundTrack(self.container, self.source.sound, self.source.origin)
        waiting, self.waiting = self.waiting, []
        for sound in waiting:
            self.add_sound(sound)


@contextmanager
def _said() -> Iterator[None]:
    """Turn the encoder's errors into sentences; those of the file system stay what they are."""
    import av

    try:
        yield
    except (av.FFmpegError, OverflowError) as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(
            f"video cannot be written as MP4: {reason(error)}; convert it to an MP4 with H.264 and AAC first."
        ) from error
