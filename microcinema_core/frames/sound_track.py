"""The sound of a video that is written: copied packet by packet where MP4 has its codec, otherwise encoded as AAC."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import Any, NamedTuple

from ..messages import reason
from .combine import AAC_RATES

log = logging.getLogger(__name__)


class SoundFormat(NamedTuple):
    """Sound that is in memory: samples a second, and 1 or 2 channels."""

    rate: int
    channels: int


class SoundTrack:
    """Writes sound into an MP4.

    Packets and frames whose time does not rise are left out, as where two files were joined: MP4 cannot hold them.

    Args:
        container: PyAV's, open for writing, before its header is written.
        given: the stream of the source, whose packets are added, or the format of frames of sound.
        origin: the source's time in seconds at which the video begins.
    """

    def __init__(self, container: Any, given: Any, origin: Fraction) -> None:
        self.container, self.origin = container, origin
        self.copied = not isinstance(given, SoundFormat) and _can_be_copied(container, given)
        if self.copied:
            self.stream = container.add_stream_from_template(given)
        else:
            rate = min(AAC_RATES, key=lambda known: abs(known - (given.rate or 0)))
            self.stream = container.add_stream("aac", rate=rate)
            self.stream.codec_context.layout = "mono" if given.channels == 1 else "stereo"
        self.rate = given.rate if self.copied and given.rate else self.stream.rate
        self.resampler: Any = None
        self.kind: tuple[Any, ...] = ()
        self.last: Fraction | None = None
        self.warned = False

    def add(self, sound: Any) -> None:
        """Add a packet of the source, or a frame of sound."""
        import av

        if isinstance(sound, av.AudioFrame):
            self._encode(sound)
            return
        shift = round(self.origin / sound.time_base)
        sound.dts -= shift
        sound.pts = sound.dts if sound.pts is None else max(sound.dts, sound.pts - shift)
        if self.copied:
            sound.stream = self.stream
            self._mux([sound])
            return
        try:
            frames = sound.decode()
        except av.FFmpegError as error:
            self._warn(reason(error))
            return
        for frame in frames:
            self._encode(frame)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if not self.copied:
            self._flush_resampler()
            self._mux(self.stream.encode(None))

    def _encode(self, frame: Any) -> None:
        import av

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self.kind:
            self._flush_resampler()
            context = self.stream.codec_context
            self.resampler = av.AudioResampler(format="fltp", layout=context.layout, rate=context.sample_rate)
            self.kind = kind
        for part in self.resampler.resample(frame):
            self._mux(self.stream.encode(part))

    def _flush_resampler(self) -> None:
        if self.resampler is not None:
            for part in self.resampler.resample(None):
                self._mux(self.stream.encode(part))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            time = None if packet.dts is None else packet.dts * packet.time_base
            if time is None or (self.last is not None and time < self.last + Fraction(1, self.rate)):
                self._warn("its times do not rise, as in files that were joined")
                continue
            self.last = time
            self.container.mux(packet)

    def _warn(self, why: str) -> None:
        if not self.warned:
            log.warning("MicroCinema: a part of the video's sound is left out: %s.", why)
        self.warned = True


def _can_be_copied(container: Any, given: Any) -> bool:
    """Return whether MP4 takes a stream's packets. PCM it has for one or two channels, but few players know it."""
    name = given.codec_context.name
    return name in container.supported_codecs and not name.startswith("pcm_")
