"""A video whose frames and sound are in memory, read as one reads a file: nothing is encoded in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from .centre_frame import checked_rgb
from .combine import prepare_audio
from .rates import frame_rate
from .sound_track import SoundFormat
from .video_file import Sound, TimedFrame


class VideoOfFrames:
    """Frames and sound in memory, as a source of a video that is written.

    Args:
        images: frames `f h w c`, or `f h w` in grey, with values from 0 to 1.
        rate: frames a second.
        audio: the host's AUDIO; it is cut where the frames end.

    Raises:
        ValueError: no frames, NaN or infinite values, a frame rate that is none, or as for `prepare_audio`.
    """

    origin = Fraction(0)

    def __init__(self, images: Any, rate: Any, audio: Mapping[str, Any] | None = None) -> None:
        if not isinstance(images, Tensor) or images.ndim not in (3, 4) or not images.numel():
            raise ValueError(
                f"video holds no frames (shape {tuple(getattr(images, 'shape', ()))}; frames, height, width, channels "
                "were expected): look at the node that made it."
            )
        self.images = images if images.ndim == 4 else images[..., None]
        for number, frame in enumerate(self.images):
            if not bool(torch.isfinite(frame).all()):
                raise ValueError(
                    f"video holds NaN or infinite values, first in frame {number}: look at the node that made it."
                )
        self.rate = frame_rate(float(rate), "the frame rate of video")
        self.time_base = 1 / self.rate
        sound = None if audio is None else prepare_audio(audio)
        self.waveform = None if sound is None else sound["waveform"][0].float().cpu()
        self.sound: Any = None
        if sound is not None and self.waveform is not None:
            self.sound = SoundFormat(int(sound["sample_rate"]), self.waveform.shape[0])

    @property
    def expected_frames(self) -> int:
        """The number of frames."""
        return len(self.images)

    def frames(self, on_sound: Sound) -> Iterator[TimedFrame]:
        """Yield the frames in RGB; the sound of each goes to `on_sound` before it, as a frame of PyAV.

        Raises:
            ValueError: huge values, or a number of channels that no picture has.
        """
        for number, frame in enumerate(self.images):
            self._hand_over_sound(number, on_sound)
            rgb = checked_rgb(rearrange(frame, "h w c -> 1 c h w"), "video")
            yield TimedFrame(number / self.rate, rearrange(rgb, "1 c h w -> h w c"))

    def _hand_over_sound(self, number: int, on_sound: Sound) -> None:
        import av

        if self.waveform is None:
            return
        first, end = (round(place * self.sound.rate / self.rate) for place in (number, number + 1))
        samples = self.waveform[:, first:end]
        if samples.shape[1]:
            layout = "mono" if self.sound.channels == 1 else "stereo"
            frame = av.AudioFrame.from_ndarray(samples.contiguous().numpy(), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = self.sound.rate, first
            frame.time_base = Fraction(1, self.sound.rate)
            on_sound(frame)
