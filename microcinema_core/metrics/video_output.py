"""Videos that the metrics write: samples without loss, and pairs for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..files.atomic import atomic_write


def write_frames(
    path: Path,
    frames: Sequence[np.ndarray] | np.ndarray,
    fps: float,
    *,
    codec: str,
    pixels: str,
    options: Mapping[str, str],
) -> None:
    """Write frames, uint8 `h w 3`, as an MP4 that is there as a whole or not at all.

    Args:
        path: the file; its folder exists.
        frames: at least one, all of one size.
        fps: frames per second.
        codec, pixels, options: FFmpeg's names of the encoder, the pixel format and the encoder's options.
    """
    import av

    with atomic_write(path, suffix=".mp4") as part, av.open(str(part), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = pixels, dict(options)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
