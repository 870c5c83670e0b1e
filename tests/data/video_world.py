"""Small real videos for tests: a square that moves over a pattern, so that every frame shows its time."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from microcinema_core.data.videos.attempt import ProcessUnit
from microcinema_core.data.videos.plan import WorkUnit

MILLISECONDS = Fraction(1, 1000)


def drawing(index: int, width: int, height: int, *, scene: int = 0, step: int = 2) -> np.ndarray:
    """Draw a bright square, `step` pixels further in each frame, as uint8 `height width 3`; scenes differ in colour."""
    rng = np.random.default_rng(scene)
    ground = np.kron(rng.integers(30, 160, (6, 8, 3)), np.ones((-(-height // 6), -(-width // 8), 1)))
    frame = ground[:height, :width].astype(np.uint8)
    side = max(4, height // 4)
    left = (step * index) % max(1, width - side)
    frame[height // 3 : height // 3 + side, left : left + side] = (250, 240, 40)
    return frame


def write_video(
    path: Path,
    *,
    frames: int = 40,
    fps: int = 16,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    draw: Callable[[int, int, int], np.ndarray] = drawing,
    title: str = "",
) -> Path:
    """Encode a video of `frames` frames; `times` in milliseconds make its frame rate vary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if codec == "libx264":
            stream.options = {"crf": "12", "preset": "ultrafast", "g": "12"}
        elif codec == "mpeg4":
            stream.bit_rate = 4_000_000
        if times is not None:
            stream.codec_context.time_base = MILLISECONDS
        for index in range(frames):
            array = draw(index, *size)
            frame = av.VideoFrame.from_ndarray(array, format="rgba" if array.shape[2] == 4 else "rgb24")
            frame.pts, frame.time_base = (
                (index, Fraction(1, fps)) if times is None else (times[index], MILLISECONDS)
            )
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """Encode a file with an audio stream only."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rotate_a_quarter(path: Path) -> Path:
    """Set an mp4's rotation flag to 90 degrees clockwise, in the track header's matrix."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one = (1 << 16).to_bytes(4, "big")
    minus, zero, unit = (-(1 << 16)).to_bytes(4, "big", signed=True), bytes(4), (1 << 30).to_bytes(4, "big")
    data[start : start + 36] = b"".join((zero, one, zero, minus, zero, zero, zero, zero, unit))
    path.write_bytes(bytes(data))
    return path


def truncate(path: Path, part: float) -> Path:
    """Cut a file to a part of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    return path


def to_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write an uncompressed tar of these members, in order."""
    import tarfile

    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@dataclass(frozen=True)
class FlakyJob:
    """Writes a file for each unit; the first `fails` attempts for video `b` fail, or end the whole process."""

    out: Path
    fails: int = 0
    number: int = errno.EIO
    dies: bool = False

    def path(self, unit: WorkUnit) -> Path:
        return self.out / f"{unit.name}.done"

    def done(self, unit: WorkUnit) -> bool:
        return self.path(unit).exists()

    def start(self) -> ProcessUnit:
        def process(unit: WorkUnit) -> None:
            tries = self.out / f"{unit.name}.tries"
            count = len(tries.read_text()) if tries.exists() else 0
            tries.write_text("." * (count + 1))
            if unit.videos[0].id == "b" and count < self.fails:
                if self.dies:
                    os._exit(1)
                raise OSError(self.number, "of this test")
            self.path(unit).write_text("x")

        return process


@dataclass(frozen=True)
class NoStart(FlakyJob):
    """A job that cannot start: it raises, or ends its process."""

    error: str = ""

    def start(self) -> ProcessUnit:
        if self.error == "ends":
            os._exit(3)
        raise (
            ValueError("of this\ntest")
            if self.error == "value"
            else FileNotFoundError(2, "of this\ntest", "x")
        )


@dataclass(frozen=True)
class Slow(FlakyJob):
    """A job that writes its process's id and stays in its first unit."""

    def start(self) -> ProcessUnit:
        def process(unit: WorkUnit) -> None:
            (self.out / "inside").write_text(str(os.getpid()))
            time.sleep(600)

        return process
