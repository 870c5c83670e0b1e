"""What a link can bring: right and wrong values of each socket type, and a node that gives them.

A value whose name is in `WRONG` must be refused by an input that is connected to it. The others may be refused with a
sentence, or give a finite result.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..outcome import NotFiniteError
from . import models

Make = Callable[[], Any]
NAN, INF = float("nan"), float("inf")
SIDE, CHANNELS = 8, 8
"""Side and channels of the tiny family's latents."""


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def _picture(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(6))


def _spoilt(tensor: Tensor, value: float) -> Tensor:
    tensor.view(-1)[-1] = value
    return tensor


def _latent(
    frames: int = 1, channels: int = CHANNELS, height: int = SIDE, width: int = SIDE
) -> dict[str, Any]:
    return {"samples": _noise(frames, channels, height, width)}


def _text(count: int = 1, tokens: int = 77, width: int = 32, **more: Any) -> list[list[Any]]:
    return [[_noise(count, tokens, width), {"pooled_output": _noise(count, width), **more}]]


def _sound(rate: Any = 44100, channels: int = 2, batch: int = 1, samples: int = 4410) -> dict[str, Any]:
    return {"waveform": 0.1 * _noise(batch, channels, samples), "sample_rate": rate}


_RATES = (1, 7000, 40000, 44099, 192000, 10**9)
SOURCES: dict[str, dict[str, Make]] = {
    "LATENT": {
        "one frame": _latent,
        "two frames": lambda: _latent(2),
        "three frames": lambda: _latent(3),
        "33 frames": lambda: _latent(33),
        "no frames": lambda: _latent(0),
        "4 channels": lambda: _latent(1, 4),
        "three frames of 4 channels": lambda: _latent(3, 4),
        "16 channels": lambda: _latent(1, 16),
        "no channels": lambda: _latent(1, 0),
        "odd size": lambda: _latent(1, CHANNELS, 7, 9),
        "three frames of odd size": lambda: _latent(3, CHANNELS, 7, 9),
        "one latent pixel": lambda: _latent(1, CHANNELS, 1, 1),
        "no pixels": lambda: _latent(1, CHANNELS, 0, 0),
        "long and thin": lambda: _latent(1, CHANNELS, 1, 2000),
        "five dimensions": lambda: {"samples": _noise(1, CHANNELS, 3, SIDE, SIDE)},
        "three dimensions": lambda: {"samples": _noise(CHANNELS, SIDE, SIDE)},
        "NaN": lambda: {"samples": _spoilt(_noise(1, CHANNELS, SIDE, SIDE), NAN)},
        "infinite": lambda: {"samples": _spoilt(_noise(3, CHANNELS, SIDE, SIDE), INF)},
        "huge numbers": lambda: {"samples": 1e30 * _noise(3, CHANNELS, SIDE, SIDE)},
        "half precision": lambda: {"samples": _noise(3, CHANNELS, SIDE, SIDE).half()},
        "whole numbers": lambda: {"samples": torch.ones(3, CHANNELS, SIDE, SIDE, dtype=torch.int64)},
        "with a mask": lambda: {**_latent(3), "noise_mask": torch.ones(1, 64, 64)},
        "with masks": lambda: {**_latent(3), "noise_mask": torch.ones(2, 1, 64, 64)},
        "with batch_index": lambda: {**_latent(3), "batch_index": [5, 6, 7]},
        "no samples": dict,
        "samples None": lambda: {"samples": None},
        "None": lambda: None,
    },
    "IMAGE": {
        "one picture": lambda: _picture(1, 64, 64, 3),
        "three pictures": lambda: _picture(3, 64, 64, 3),
        "twelve pictures": lambda: _picture(12, 64, 64, 3),
        "no picture": lambda: _picture(0, 64, 64, 3),
        "odd size": lambda: _picture(2, 37, 51, 3),
        "one pixel": lambda: _picture(1, 1, 1, 3),
        "no pixels": lambda: _picture(1, 0, 0, 3),
        "60,000 pixels long": lambda: _picture(1, 1, 60000, 3),
        "60,000 pixels high": lambda: _picture(1, 60000, 2, 3),
        "grey": lambda: _picture(2, 64, 64, 1),
        "grey without channels": lambda: _picture(2, 64, 64),
        "grey with alpha": lambda: _picture(1, 64, 64, 2),
        "with alpha": lambda: _picture(3, 64, 64, 4),
        "five channels": lambda: _picture(1, 64, 64, 5),
        "two dimensions": lambda: _picture(64, 64),
        "five dimensions": lambda: _picture(1, 1, 64, 64, 3),
        "NaN": lambda: _spoilt(_picture(1, 64, 64, 3), NAN),
        "infinite": lambda: _spoilt(_picture(1, 64, 64, 3), INF),
        "beyond 0 to 1": lambda: 20 * _noise(2, 64, 64, 3),
        "huge numbers": lambda: 1e30 * _noise(2, 64, 64, 3),
        "half precision": lambda: _picture(1, 64, 64, 3).half(),
        "bytes": lambda: (255 * _picture(1, 64, 64, 3)).to(torch.uint8),
        "None": lambda: None,
    },
    "MASK": {
        "right": lambda: torch.ones(1, 64, 64),
        "NaN": lambda: torch.full((1, 64, 64), NAN),
        "None": lambda: None,
    },
    "CONDITIONING": {
        "text": _text,
        "text of Stable Diffusion": lambda: _text(width=768),
        "text of SDXL": lambda: _text(width=2048),
        "two texts": lambda: _text(2),
        "three texts": lambda: _text(3),
        "two entries": lambda: [*_text(), *_text()],
        "no tokens": lambda: _text(tokens=0),
        "one token": lambda: _text(tokens=1),
        "no texts": lambda: _text(0),
        "long text": lambda: _text(tokens=231),
        "empty": list,
        "two dimensions": lambda: [[_noise(77, 32), {}]],
        "NaN": lambda: [[_spoilt(_noise(1, 77, 32), NAN), {}]],
        "masked": lambda: _text(mask=torch.ones(1, 64, 64), mask_strength=1.0),
        "masks": lambda: _text(mask=torch.ones(2, 64, 64), mask_strength=1.0),
        "in an area": lambda: _text(area=(4, 4, 0, 0), strength=1.0),
        "for a time": lambda: _text(start_percent=0.0, end_percent=0.5),
        "five texts": lambda: _text(5),
        "huge numbers": lambda: [[1e30 * _noise(1, 77, 32), {}]],
        "whole numbers": lambda: [[torch.ones(1, 77, 32, dtype=torch.int64), {}]],
        "NaN mask": lambda: _text(mask=torch.full((1, 64, 64), NAN), mask_strength=1.0),
        "NaN mask strength": lambda: _text(mask=torch.ones(1, 64, 64), mask_strength=NAN),
        "NaN strength": lambda: _text(area=(4, 4, 0, 0), strength=NAN),
        "from NaN on": lambda: _text(start_percent=NAN),
        "flat mask": lambda: _text(mask=torch.ones(64), mask_strength=1.0),
        "no mask": lambda: _text(mask=torch.ones(0, 64, 64), mask_strength=1.0),
        "no entries": lambda: [[_noise(1, 77, 32), 3]],
        "without pooled output": lambda: [[_noise(1, 77, 32), {"pooled_output": None}]],
        "None": lambda: None,
    },
    "AUDIO": {
        "sound": _sound,
        **{
            f"{rate} samples a second": functools.partial(_sound, rate)
            for rate in (1, 7000, 40000, 44099, 192000, 10**9)
        },
        "no rate": lambda: _sound(0),
        "negative rate": lambda: _sound(-44100),
        "rate NaN": lambda: _sound(NAN),
        "rate infinite": lambda: _sound(INF),
        "rate a text": lambda: _sound("44100"),
        "rate None": lambda: _sound(None),
        "rate with a point": lambda: _sound(44100.5),
        "six channels": lambda: _sound(channels=6),
        "no channels": lambda: _sound(channels=0),
        "one channel": lambda: _sound(channels=1),
        "a batch": lambda: _sound(batch=3),
        "no batch": lambda: _sound(batch=0),
        "no samples": lambda: _sound(samples=0),
        "one sample": lambda: _sound(samples=1),
        "loud": lambda: {"waveform": 1e30 * _noise(1, 2, 4410), "sample_rate": 44100},
        "NaN": lambda: {"waveform": _spoilt(_noise(1, 2, 4410), NAN), "sample_rate": 44100},
        "infinite": lambda: {"waveform": _spoilt(_noise(1, 2, 4410), INF), "sample_rate": 44100},
        "two dimensions": lambda: {"waveform": _noise(2, 4410), "sample_rate": 44100},
        "half precision": lambda: {"waveform": _noise(1, 2, 4410).half(), "sample_rate": 44100},
        "whole numbers": lambda: {
            "waveform": torch.ones(1, 2, 4410, dtype=torch.int16),
            "sample_rate": 44100,
        },
        "empty": dict,
        "waveform None": lambda: {"waveform": None, "sample_rate": 44100},
        "None": lambda: None,
    },
    **models.SOURCES,
}
WRONG = {
    "LATENT": {"no frames", "five dimensions", "three dimensions", "NaN", "infinite", "no samples", "samples None",
               "no channels", "no pixels", "huge numbers", "None"},
    "IMAGE": {"no picture", "no pixels", "five channels", "two dimensions", "five dimensions", "NaN", "infinite",
              "huge numbers", "None"},
    "MASK": {"NaN", "None"},
    "CONDITIONING": {"NaN", "two dimensions", "no texts", "no tokens", "empty", "None", "text of SDXL",
                     "whole numbers", "NaN mask", "NaN mask strength", "NaN strength", "from NaN on", "flat mask",
                     "no mask", "no entries"},
    "AUDIO": {"no rate", "negative rate", "rate NaN", "rate infinite", "rate a text", "rate None", "NaN", "infinite",
              "loud", "two dimensions", "empty", "waveform None", "None"},
    "VIDEO": {"one frame", "no video", "a MODEL", "an object", "None"},
}  # fmt: skip
"""Names of values that every input of a type refuses; of the types that are not here, only None."""


class AnyType(str):
    """A socket type that fits every other."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


class FuzzGive:
    """A node that gives a value: one of `SOURCES` as `type/name`, or a number or text as JSON."""

    RETURN_TYPES = (AnyType("*"),)
    FUNCTION, CATEGORY = "give", "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  (the host's name)
        """Return the node's inputs."""
        return {"required": {"name": ("STRING", {})}}

    def give(self, name: str) -> tuple[Any]:
        """Return the value."""
        kind, _, which = name.partition("/")
        return (json.loads(which) if kind == "JSON" else SOURCES[kind][which](),)


class FuzzUse:
    """An output node that uses a value as the next node in a graph would, and checks that it is finite."""

    RETURN_TYPES: tuple[str, ...] = ()
    FUNCTION, CATEGORY, OUTPUT_NODE = "use", "test", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return the node's inputs."""
        return {"required": {"value": (AnyType("*"), {}), "kind": ("STRING", {})}}

    def use(self, value: Any, kind: str) -> tuple[()]:
        """Use a value of a socket type."""
        use = models.USES.get(kind)
        if use is not None:
            value = use(value)
        if not is_finite(value):
            raise NotFiniteError(f"the {kind} is not finite")
        return ()


def is_finite(value: Any) -> bool:
    """Return whether all numbers in a value are finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_finite, value))
    return not isinstance(value, float) or abs(value) < INF
