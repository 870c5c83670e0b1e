"""The check of a node's inputs against its schema, before the node runs.

The host checks what is typed into a widget, but hands over as it is what a link brings, and what a script's prompt
holds in place of a link.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..microcinema_core.adapter.host import io
from ..microcinema_core.messages import is_text
from ..microcinema_core.values import checked, shown

PLAIN = (str, numbers.Number, Mapping, list, tuple, Tensor)
"""Types of values that are no model of any kind."""


def checked_inputs(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Decorate a node's `execute`, under `classmethod`: it gets only inputs that fit the schema.

    Numbers become plain ones, finite and in their range, and switches true or false. A required link brings a value of
    its type.

    Raises:
        ValueError: another input; the message names it.
    """

    declared: list[io.Input] = []  # read once: a loader's schema lists its folders each time

    @functools.wraps(execute)
    def run(cls: type[io.ComfyNode], *args: Any, **inputs: Any) -> io.NodeOutput:
        given = dict(inspect.signature(execute).bind_partial(cls, *args).arguments)
        del given[next(iter(given))]
        given |= inputs
        if not declared:
            declared.extend(cls.define_schema().inputs)
        for one in declared:
            if one.id in given and given[one.id] is None and one.optional:
                del given[one.id]  # so that the node's own default applies
            elif one.id in given:
                given[one.id] = fitting(one, given[one.id])
        return execute(cls, **given)

    return run


def fitting(declared: io.Input, value: Any) -> Any:
    """Return an input's value, a number or switch as a plain one.

    Raises:
        ValueError: it does not fit the declaration.
    """
    kind, name = str(declared.get_io_type()), declared.id
    if kind in ("INT", "FLOAT"):
        low, high = declared.min, declared.max
        within = (-math.inf if low is None else low, math.inf if high is None else high)
        return checked(_plain_number(value, kind), int if kind == "INT" else float, name, within)
    if kind == "BOOLEAN":
        return checked(_plain_switch(value), bool, name)
    if kind == "STRING" and not (isinstance(value, str) and is_text(value)):
        raise ValueError(f"{name} is {shown(value)}; expected a text of Unicode characters.")
    if kind in _FITS:
        fits, words = _FITS[kind]
        if not fits(value):
            raise ValueError(f"{name} is {shown(value)}; expected {words}: connect one.")
        if kind == "CONDITIONING":
            require_right_texts(value, name)
    return value


def _plain_number(value: Any, kind: str) -> Any:
    """Return a number of any library as Python's own; a whole float is one too, where whole numbers are wanted."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, numbers.Real):
        return value
    number = float(value)
    return int(number) if kind == "INT" and math.isfinite(number) and number.is_integer() else number


def _plain_switch(value: Any) -> Any:
    """Return true or false for a number of any library that is 0 or 1."""
    return bool(value) if isinstance(value, numbers.Real) and value in (0, 1) else value


def _is_model(value: Any) -> bool:
    return value is not None and not isinstance(value, PLAIN)


def _is_video(value: Any) -> bool:
    return _is_model(value) and callable(getattr(value, "get_components", None))


def _is_latent(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("samples"), Tensor)


def _is_audio(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("waveform"), Tensor)
        and isinstance(value.get("sample_rate"), numbers.Real)
    )


def _is_conditioning(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value)
        and all(isinstance(text, Tensor) and text.ndim == 3 and text.numel() for text, _ in value)
        and all(isinstance(more, Mapping) for _, more in value)
    )


def require_right_texts(conditioning: list[Any], name: str) -> None:
    """Refuse texts, masks and strengths of which the host would make NaN, or an error of torch's.

    Raises:
        ValueError: the message names the input and what is wrong in it.
    """
    for text, more in conditioning:
        if not text.is_floating_point() or not bool(torch.isfinite(text).all()):
            raise ValueError(
                f"{name} holds texts of NaN, infinite or whole numbers: look at the text encoder that made it."
            )
        for key in _NUMBERS:
            if key in more and not _is_finite_number(more[key]):
                raise ValueError(
                    f"{name} has the {key} {shown(more[key])}; expected a finite number: look at the node that sets it."
                )
        if "mask" in more and not _is_mask(more["mask"]):
            raise ValueError(
                f"{name} has a mask that is empty, not finite or of another shape than (frames, height, width): look "
                "at the node that made it."
            )


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _is_mask(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim in (2, 3)
        and value.numel() > 0
        and bool(torch.isfinite(value).all())
    )


_NUMBERS = ("strength", "mask_strength", "start_percent", "end_percent")
"""Entries of a CONDITIONING that have to be finite."""


_FITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "MODEL": (_is_model, "a MODEL"),
    "CLIP": (_is_model, "a CLIP"),
    "VAE": (_is_model, "a VAE"),
    "VIDEO": (_is_video, "a VIDEO"),
    "APPEARNET": (_is_model, "an APPEARNET"),
    "CLIP_VISION": (_is_model, "a CLIP_VISION"),
    "CLIP_VISION_OUTPUT": (_is_model, "a CLIP_VISION_OUTPUT"),
    "LATENT": (_is_latent, "a LATENT"),
    "IMAGE": (lambda value: isinstance(value, Tensor), "an IMAGE"),
    "AUDIO": (_is_audio, "an AUDIO with a waveform and a sample_rate"),
    "CONDITIONING": (_is_conditioning, "a CONDITIONING with at least one text"),
}
"""By socket type: what tells its values, and their name for a message."""
