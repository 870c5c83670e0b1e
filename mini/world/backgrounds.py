"""Random backgrounds: named flat colours, gradients, sharp and blurred crops of scikit-image's photographs."""

from __future__ import annotations

import colorsys
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from microcinema_core.files.downloads import hash_of

# Name: ranges of hue (in turns), saturation and value.
COLOURS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "white": ((0.0, 1.0), (0.0, 0.03), (0.94, 1.0)),
    "gray": ((0.0, 1.0), (0.0, 0.05), (0.35, 0.75)),
    "black": ((0.0, 1.0), (0.0, 0.1), (0.0, 0.12)),
    "red": ((-0.02, 0.02), (0.6, 1.0), (0.6, 1.0)),
    "orange": ((0.06, 0.1), (0.65, 1.0), (0.8, 1.0)),
    "yellow": ((0.13, 0.17), (0.5, 1.0), (0.85, 1.0)),
    "green": ((0.28, 0.42), (0.4, 1.0), (0.4, 0.95)),
    "blue": ((0.56, 0.66), (0.45, 1.0), (0.5, 1.0)),
    "purple": ((0.72, 0.8), (0.4, 1.0), (0.4, 0.9)),
    "pink": ((0.88, 0.96), (0.2, 0.55), (0.85, 1.0)),
    "brown": ((0.04, 0.09), (0.5, 0.8), (0.3, 0.55)),
}
KINDS = {"flat": 0.4, "gradient": 0.25, "photo": 0.2, "blurred": 0.15}
"""Probabilities of the kinds of background."""
PICTURE_KINDS = {"flat": 0.7, "gradient": 0.3}
"""Probabilities for training text to image. No caption describes a photograph, so a model would have to invent it."""
TEST_PHOTOS = ("coffee.png", "gravel.png", "moon.png")
VALIDATION_PHOTOS = ("brick.png", "chelsea.png")
PHOTO_SHA256 = {
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    "grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "ihc.png": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    "motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    "retina.jpg": "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "moon.png": "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
}
"""The photographs by file name. With another picture under one of these names, the clips would be others."""
TRAIN_PHOTOS = tuple(name for name in PHOTO_SHA256 if name not in TEST_PHOTOS + VALIDATION_PHOTOS)
_HELD_OUT = {"test": TEST_PHOTOS, "validation": VALIDATION_PHOTOS}
_SHORT_SIDE = 320


@dataclass(frozen=True)
class Background:
    """RGB pixels `3 h w` in [0, 1], their kind, and the name of the colour if flat."""

    pixels: Tensor
    kind: str
    colour: str | None = None


def random_background(
    rng: np.random.Generator, *, size: int, split: str = "train", kinds: Mapping[str, float] = KINDS
) -> Background:
    """Draw a background of a random kind; each split has photographs of its own."""
    kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    if kind == "flat":
        return flat_background(str(rng.choice(list(COLOURS))), rng, size=size)
    if kind == "gradient":
        return Background(_gradient(rng, size), kind)
    names = _HELD_OUT.get(split, TRAIN_PHOTOS)
    photo = photograph(names[rng.integers(len(names))])
    return Background(_crop(photo, rng, size, blurred=kind == "blurred"), kind)


def flat_background(colour: str, rng: np.random.Generator, *, size: int) -> Background:
    """Draw a shade of one of `COLOURS`."""
    rgb = torch.tensor(_shade(colour, rng), dtype=torch.float32)
    return Background(rgb[:, None, None].expand(3, size, size).contiguous(), "flat", colour)


def _shade(colour: str, rng: np.random.Generator) -> tuple[float, float, float]:
    hue, saturation, value = (rng.uniform(*bounds) for bounds in COLOURS[colour])
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def _gradient(rng: np.random.Generator, size: int) -> Tensor:
    """Draw a gradient between two arbitrary colours: linear at any angle, or radial about any point."""
    ends = torch.tensor(rng.uniform(size=(2, 3)), dtype=torch.float32)
    axis = torch.linspace(-1, 1, size)
    if rng.random() < 0.7:
        angle = rng.uniform(0, 2 * np.pi)
        ramp = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
    else:
        x, y = rng.uniform(-0.7, 0.7, size=2)
        ramp = torch.hypot(axis[None, :] - x, axis[:, None] - y)
    ramp = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    return torch.lerp(ends[0, :, None, None], ends[1, :, None, None], ramp)


def _crop(photo: Image.Image, rng: np.random.Generator, size: int, *, blurred: bool) -> Tensor:
    edge = rng.uniform(0.35, 1.0) * min(photo.size)
    left, top = rng.uniform(0, photo.width - edge), rng.uniform(0, photo.height - edge)
    box = (left, top, left + edge, top + edge)
    first = int(rng.integers(size // 16, size // 3)) if blurred else size
    crop = photo.resize((first, first), Image.Resampling.BILINEAR, box=box)
    if blurred:
        crop = crop.resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255


@cache
def photograph(name: str) -> Image.Image:
    """Return a photograph of `PHOTO_SHA256`, its shorter side at most 320 pixels."""
    with Image.open(_checked_photo(_photo_folder() / name)) as image:
        photo = image.convert("RGB")
    factor = _SHORT_SIDE / min(photo.size)
    if factor < 1:
        photo = photo.resize(
            (round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BOX
        )
    return photo


def _checked_photo(path: Path) -> Path:
    """Return the path of a photograph that is the one of `PHOTO_SHA256`.

    Raises:
        ValueError: it is missing, or another picture.
    """
    if not path.is_file() or hash_of(path) != PHOTO_SHA256[path.name]:
        raise ValueError(
            f"{path} is missing or not the photograph that the training data is made with (sha256 "
            f"{PHOTO_SHA256[path.name]} is expected); install the scikit-image that requirements-dev.txt names"
        )
    return path


@cache
def _photo_folder() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "photo backgrounds need the pictures of scikit-image; install the package scikit-image"
        )
    return Path(found.submodule_search_locations[0]) / "data"
