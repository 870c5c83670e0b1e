"""Pictures as CLIP vision sees them, for weights that attend to them beside the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import ResamplerConfig
from .host import comfy

CLIP_FILE = "CLIP-ViT-H-fp16.safetensors"


@dataclass(frozen=True)
class Picture:
    """Features of a given picture, the last hidden state of a CLIP vision model, and those of mid grey.

    Attributes:
        features: `v l d` for v videos that are sampled together.
        grey: `1 l d`, which the unguided branch sees.
    """

    features: Tensor
    grey: Tensor


class TokensCond(comfy.conds.CONDRegular):
    """Image tokens `v n d` of the videos of a batch, which the host must not repeat for their frames."""

    def process_cond(self, batch_size: int, **options: Any) -> TokensCond:
        """Return the tokens as they are."""
        return self._copy_with(self.cond)


def features_of(clip_vision_output: Any) -> Tensor | None:
    """Return the last hidden state `n l d` of the host's CLIP_VISION_OUTPUT of n pictures; None for none."""
    return None if clip_vision_output is None else clip_vision_output["last_hidden_state"].detach().float()


def checked_picture(
    name: str,
    config: ResamplerConfig | None,
    features: Tensor | None,
    grey: Tensor | None,
    *,
    videos: int = 1,
) -> Picture | None:
    """Return a picture for weights that take its features; None for those that do not.

    Args:
        name: name of the weights, for messages.
        config: their resampler's configuration; None where they have none.
        features: of the picture, `n l d`.
        grey: of mid grey, `1 l d`.
        videos: number n of pictures that is expected.

    Raises:
        ValueError: features that are missing, of another model or of several pictures, or that the weights do not take.
    """
    if config is None:
        if features is not None:
            raise ValueError(
                f"{name} does not look at pictures through CLIP vision: disconnect clip_vision_output."
            )
        return None
    if features is None:
        raise ValueError(
            f"{name} also looks at the picture through CLIP vision: connect clip_vision_output, from the stock CLIP "
            f"Vision Encode with crop none and {CLIP_FILE}."
        )
    if grey is None:
        raise ValueError(
            f"{name} needs a grey picture for the negative branch: connect clip_vision of MicroCinema Crafter Loader, "
            "from the stock Load CLIP Vision."
        )
    for what, given in (("clip_vision_output", features), ("clip_vision", grey)):
        if given.ndim != 3 or given.shape[-1] != config.in_width:
            raise ValueError(
                f"{what} has features of shape {tuple(given.shape)}, {config.in_width} channels were expected: use "
                f"{CLIP_FILE}."
            )
    if features.shape[0] != videos:
        raise ValueError(f"clip_vision_output holds {features.shape[0]} pictures, {videos} expected.")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("clip_vision_output holds NaN or infinite values: look at the picture.")
    return Picture(features, grey)
