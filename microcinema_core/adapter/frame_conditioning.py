"""Conditioning that belongs to frames: a schedule of texts, and for TSR each window's own texts, masks and hints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..frames.schedule import Mixed
from ..values import shown
from .memory import stop_if_cancelled

Conditioning = list[list[Any]]
"""The host's CONDITIONING: pairs of a text's embedding `n l d` and further entries by name."""
MOST_TOKENS, MOST_IN_ALL = 2**14, 2**19
"""Most tokens of a schedule's rows, each and together: 1024 frames have 512 each, 1.6 GB at a width of 768."""


def scheduled(clip: Any, texts: Sequence[str], mixed: Sequence[Mixed]) -> Conditioning:
    """Encode the texts of a video's parts and return a conditioning with one row for each frame.

    Texts of different lengths are repeated to a common one, as the host does for guidance: attention over repeated
    tokens is the same. Mixed frames are interpolated between the embeddings, as the stock ConditioningAverage does.

    Args:
        clip: the host's CLIP.
        texts: the parts' texts.
        mixed: the text of each frame.

    Raises:
        ValueError: a text whose encoding is not finite, or more than `MOST_TOKENS` or `MOST_IN_ALL`.
    """
    encoded = {text: _encoded(clip, text) for text in dict.fromkeys(texts)}

    def rows(of_parts: list[Tensor]) -> Tensor:
        table = torch.cat(of_parts)
        out = table.new_empty(len(mixed), *table.shape[1:])
        for row, (before, after, share) in enumerate(mixed):
            out[row] = torch.lerp(table[before], table[after], share)
        return out

    made: Conditioning = []
    for entries in zip(*(encoded[text] for text in texts), strict=True):
        length = _common_length([text.shape[1] for text, _ in entries], len(mixed))
        tokens = rows([text.repeat(1, length // text.shape[1], 1) for text, _ in entries])
        pooled = [more.get("pooled_output") for _, more in entries]
        more = dict(entries[0][1])
        if all(isinstance(one, Tensor) for one in pooled):
            more["pooled_output"] = rows(pooled)
        made.append([tokens, more])
    return made


def _encoded(clip: Any, text: str) -> Conditioning:
    """Return a text's conditioning.

    Raises:
        ValueError: the encoder makes NaN or infinite values of it, as of the weight in `(a:nan)`.
    """
    stop_if_cancelled()
    made: Conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    for tokens, more in made:
        for one in (tokens, more.get("pooled_output")):
            if isinstance(one, Tensor) and not bool(torch.isfinite(one).all()):
                raise ValueError(
                    f"the text {shown(text)} is encoded to NaN or infinite values: look at its weights, as in "
                    "(word:1.2), and at the text encoder."
                )
    return made


def _common_length(lengths: list[int], frames: int) -> int:
    """Return the number of tokens to which texts of these lengths are repeated.

    Raises:
        ValueError: so many would take gigabytes.
    """
    length = math.lcm(*lengths)
    if length > MOST_TOKENS or frames * length > MOST_IN_ALL:
        given = ", ".join(map(str, sorted(set(lengths))[:8]))
        raise ValueError(
            f"the texts are encoded to {given} tokens, and together they take {length} for each of {frames} frames; "
            f"at most {min(MOST_TOKENS, MOST_IN_ALL // frames)} were expected: write shorter lines, of similar length."
        )
    return length


Taken = Callable[[Tensor, str], Tensor]
"""Picks the rows of some frames of a value; its second argument says what the rows are, for a message."""


def of_frames(
    conditioning: Conditioning, index: Tensor, frames: int, name: str, *, stride: int
) -> Conditioning:
    """Return a conditioning for some frames of a video.

    Texts, masks and ControlNet hints that are given once serve all frames. Those given for each frame of the finished
    video are taken by the frames' indices. Texts given for each key frame are interpolated between the key frames'
    embeddings; a frame between the last key frame and the first, in a loop, gets those of both.

    Args:
        conditioning: the host's CONDITIONING; not changed.
        index: indices of the frames in the finished video; in a loop, its length stands for the first frame.
        frames: frames of the finished video.
        name: the input's name, for the message.
        stride: frames from one key frame to the next.

    Raises:
        ValueError: another number of texts, masks or hints.
    """
    key_frames = math.ceil(frames / stride)

    def taken(value: Tensor, what: str) -> Tensor:
        count, place = value.shape[0], index.to(value.device) % frames
        if count == 1:
            return value
        if count == frames:
            return value[place]
        if count == key_frames and what in _BLENDED:
            key = place // stride
            share = ((place % stride) / stride).to(value).reshape(-1, *[1] * (value.ndim - 1))
            return torch.lerp(value[key], value[(key + 1) % count], share)
        keys = f"{key_frames}, one for each key frame, " if what in _BLENDED else ""
        raise ValueError(
            f"{name} has {count} {what}, and the finished video has {frames} frames: give one for the whole video, "
            f"{keys}or {frames}, one for each frame."
        )

    return _rows_of(conditioning, taken)


def require_single(conditioning: Conditioning, name: str, node: str) -> None:
    """Refuse a conditioning with texts, masks or hints for single frames.

    Raises:
        ValueError: the message names the input and the node.
    """

    def taken(value: Tensor, what: str) -> Tensor:
        if value.shape[0] != 1:
            raise ValueError(
                f"{name} has {value.shape[0]} {what}, and {node} takes one for the whole video: connect CLIP Text "
                "Encode."
            )
        return value

    _rows_of(conditioning, taken)


def require_rows(conditioning: Conditioning, frames: int, name: str) -> None:
    """Refuse texts and masks whose number does not fit the frames of a video.

    Raises:
        ValueError: the message names the numbers.
    """
    for text, more in conditioning:
        if text.shape[0] not in (1, frames):
            raise ValueError(
                f"{name} has {text.shape[0]} texts, and the video has {frames} frames: give one for the whole video, "
                f"or {frames}, one for each frame (frames in MicroCinema Prompt Schedule)."
            )
        mask = more.get("mask")
        if isinstance(mask, Tensor) and mask.ndim == 3 and (not len(mask) or frames % len(mask)):
            raise ValueError(
                f"{name} has {len(mask)} masks, and the video has {frames} frames: give one for the whole video, or "
                f"{frames}, one for each frame."
            )


def require_finite_latents(samples: Tensor) -> Tensor:
    """Return sampled latents.

    Raises:
        ValueError: they hold NaN or infinite values.
    """
    if not bool(torch.isfinite(samples).all()):
        raise ValueError(
            "the sampled latents hold NaN or infinite values: look at what changes the texts of positive and negative "
            "(multiplied weights, masks, strengths), at cfg, and at the model, which may need another precision."
        )
    return samples


_BLENDED = ("texts", "pooled texts")
"""What is interpolated between key frames."""
_PER_FRAME = {"mask": 3, "pooled_output": 2, "concat_latent_image": 4, "concat_mask": 4}
"""Entries that may hold a value for each frame, and their number of dimensions then."""
_NAMES = {"mask": "masks", "pooled_output": "pooled texts"}


def _rows_of(conditioning: Conditioning, taken: Taken) -> Conditioning:
    """Return a copy of a conditioning with other rows of all that may be given for each frame."""

    def entries(given: dict[str, Any]) -> dict[str, Any]:
        out = dict(given)
        for key, value in given.items():
            if key == "control":
                out[key] = _hints_of_frames(value, taken)
            elif isinstance(value, Tensor) and key in _PER_FRAME and value.ndim == _PER_FRAME[key]:
                out[key] = taken(value, _NAMES.get(key, f"entries of {key}"))
        return out

    return [[taken(text, "texts"), entries(more)] for text, more in conditioning]


def _hints_of_frames(control: Any, taken: Taken) -> Any:
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
