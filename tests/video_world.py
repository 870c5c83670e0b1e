"""Small real videos for tests, encoded here: a square that moves over stripes, so that every frame tells its time."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from microcinema_core.data.videos.jobs import Work
from microcinema_core.data.videos.plan import Unit
from tests.host.weight_files import _autoencoder_shapes, _open_clip_shapes

MILLISECONDS = Fraction(1, 1000)


def drawing(index: int, width: int, height: int, *, scene: int = 0, step: int = 2) -> np.ndarray:
    """uint8 (height, width, 3): a bright square, `step` pixels further each frame; scenes differ in all colours."""
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
) -> Path:
    """A video of `frames` frames; `times` in milliseconds make its frame rate vary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
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
    """A tone, no pictures."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rotate_a_quarter(path: Path) -> Path:
    """Asks a player to turn an mp4 by 90 degrees clockwise, in the track header's matrix."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one = (1 << 16).to_bytes(4, "big")
    minus, zero, unit = (-(1 << 16)).to_bytes(4, "big", signed=True), bytes(4), (1 << 30).to_bytes(4, "big")
    data[start : start + 36] = b"".join((zero, one, zero, minus, zero, zero, zero, zero, unit))
    path.write_bytes(bytes(data))
    return path


def truncate(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    return path


def to_tar(path: Path, members: dict[str, bytes]) -> Path:
    """An uncompressed tar of these members, in order."""
    import tarfile

    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_stable_diffusion(
    path: Path, kind: str, *, unet: dict[str, Tensor] | None = None, small: bool = True, seed: int = 1
) -> Path:
    """Text encoder and VAE of random weights under the keys of Stable Diffusion 1.5 ("sd1") or 2.1 ("sd2")."""
    if kind == "sd1":
        text = _clip_shapes(64, 2) if small else _clip_shapes()
    else:
        text = _open_clip_shapes(64, 3) if small else _open_clip_shapes()
    vae = _autoencoder_shapes()
    if small:
        narrow = {128: 32, 256: 32, 512: 32}  # of one width, where no block needs a shortcut of its own
        vae = {
            key: tuple(narrow.get(side, side) for side in shape)
            for key, shape in vae.items()
            if "nin_shortcut" not in key
        }
    tensors = {f"model.diffusion_model.{key}": tensor.half() for key, tensor in (unet or {}).items()}
    save_file(tensors | random_tensors(text, seed) | random_tensors(vae, seed + 1), str(path))
    return path


def _clip_shapes(width: int = 768, layers: int = 12) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (49408, width),
        "embeddings.position_embedding.weight": (77, width),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
    }
    for layer in range(layers):
        parts: dict[str, tuple[int, ...]] = {
            f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")
        }
        parts |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        parts |= {"layer_norm1": (width,), "layer_norm2": (width,)}
        for name, shape in parts.items():
            shapes[f"encoder.layers.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layers.{layer}.{name}.bias"] = shape[:1]
    return {f"cond_stage_model.transformer.text_model.{key}": shape for key, shape in shapes.items()}


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Every layer acts; a block of random numbers is repeated, as drawing half a billion takes long."""
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn((1 << 20) + 7, generator=generator)
    tensors = {}
    for key, shape in shapes.items():
        count = torch.Size(shape).numel()
        value = block.repeat(-(-count // len(block)))[:count].reshape(shape).roll(len(key))
        is_norm = any(part in key for part in ("norm", ".ln_"))
        scale = shape[1:].numel() ** -0.5 if len(shape := torch.Size(shape)) > 1 else 0.1
        tensors[key] = (value * scale + (is_norm and key.endswith("weight"))).half()
    return tensors


@dataclass(frozen=True)
class FlakyJob:
    """Writes a file a unit; the first `fails` tries of the unit of video `b` fail, or end the whole process."""

    out: Path
    fails: int = 0
    number: int = errno.EIO
    dies: bool = False

    def path(self, unit: Unit) -> Path:
        return self.out / f"{unit.name}.done"

    def done(self, unit: Unit) -> bool:
        return self.path(unit).exists()

    def start(self) -> Work:
        def work(unit: Unit) -> None:
            tries = self.out / f"{unit.name}.tries"
            count = len(tries.read_text()) if tries.exists() else 0
            tries.write_text("." * (count + 1))
            if unit.videos[0].id == "b" and count < self.fails:
                if self.dies:
                    os._exit(1)
                raise OSError(self.number, "of this test")
            self.path(unit).write_text("x")

        return work
