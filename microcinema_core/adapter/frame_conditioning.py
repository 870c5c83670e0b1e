"""Conditioning that belongs to frames, for TSR: each window gets the texts, masks and hints of its own frames."""

from __future__ import annotations

from typing import Any

from torch import Tensor

Conditioning = list[list[Any]]
"""The host's CONDITIONING: pairs of a text's embedding `n l d` and further entries by name."""


def of_frames(conditioning: Conditioning, index: Tensor, frames: int, name: str) -> Conditioning:
    """Return a conditioning for some frames of a video.

    Texts, masks and ControlNet hints that are given once serve all frames. Those given for each frame of the finished
    video are taken by the frames' indices.

    Args:
        conditioning: the host's CONDITIONING; not changed.
        index: indices of the frames in the finished video.
        frames: frames of the finished video.
        name: the input's name, for the message.

    Raises:
        ValueError: another number of texts, masks or hints.
    """

    def taken(value: Tensor, what: str) -> Tensor:
        if value.shape[0] == 1:
            return value
        if value.shape[0] != frames:
            raise ValueError(
                f"{name} has {value.shape[0]} {what}, and the finished video has {frames} frames: give one for the "
                f"whole video, or {frames}, one for each frame."
            )
        return value[index.to(value.device)]

    def entries(given: dict[str, Any]) -> dict[str, Any]:
        out = dict(given)
        for key, value in given.items():
            if key == "control":
                out[key] = _hints_of_frames(value, taken)
            elif isinstance(value, Tensor) and key in _PER_FRAME and value.ndim == _PER_FRAME[key]:
                out[key] = taken(value, f"entries of {key}" if key != "mask" else "masks")
        return out

    return [[taken(text, "texts"), entries(more)] for text, more in conditioning]


def require_masks(conditioning: Conditioning, frames: int, name: str) -> None:
    """Refuse masks whose number does not fit the frames of a video.

    Raises:
        ValueError: the message names the numbers.
    """
    for _, more in conditioning:
        mask = more.get("mask")
        if isinstance(mask, Tensor) and mask.ndim == 3 and (not len(mask) or frames % len(mask)):
            raise ValueError(
                f"{name} has {len(mask)} masks, and the video has {frames} frames: give one for the whole video, or "
                f"{frames}, one for each frame."
            )


_PER_FRAME = {"mask": 3, "pooled_output": 2, "concat_latent_image": 4, "concat_mask": 4}
"""Entries that may hold a value for each frame, and their number of dimensions then."""


def _hints_of_frames(control: Any, taken: Any) -> Any:
    """Return a copy of a chain of ControlNets with the hints of some frames."""
    if control is None:
        return None
    copied = control.copy()
    if copied.cond_hint_original is not None:
        copied.cond_hint_original = taken(copied.cond_hint_original, "ControlNet hints")
    copied.extra_concat_orig = [
        taken(extra, "ControlNet hints") for extra in getattr(copied, "extra_concat_orig", [])
    ]
    copied.previous_controlnet = _hints_of_frames(control.previous_controlnet, taken)
    return copied
