"""Preparation of the centre frame: a picture of any size, aspect ratio and kind, made into the model's input.

The centre frame sets the appearance of the whole video (section 3.1). The paper takes it from a text-to-image
model, at the video model's own size. How a user's own picture is fitted to that size is decided here.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, get_args

import kornia.geometry.transform as geometry
import torch
import torch.nn.functional as F
from einops import reduce, repeat
from torch import Tensor

from ..networks.vae import FoldedVAE
from ..values import chosen

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[str, ...] = get_args(Fit)

SIZE_STEP = 8
"""Widths and heights are multiples of this: every VAE here works on blocks of 8 x 8 pixels."""

DEFAULT_SIZE = 320
"""Side in pixels at which the paper trained, used for every Stable Diffusion model."""

FOLDED_VAE_SIZE = 128
"""Side in pixels at which models with a `FoldedVAE` are trained."""

BACKGROUND = 1.0
"""White, as a shade from 0 to 1. It is both behind transparency and around a padded picture, so no seam shows."""

BRIGHTEST = 1e4
"""Largest value that is taken for a picture's; a decoder may go a little beyond 1, and high dynamic range further."""

_AREA_FACTOR = 4

log = logging.getLogger(__name__)


def require_finite(pictures: Tensor, name: str) -> None:
    """Check that `b c h w` pictures hold no NaN or infinity.

    Raises:
        ValueError: a picture does; the message starts with `name`.
    """
    finite = reduce(torch.isfinite(pictures).to(torch.uint8), "b c h w -> b", "min")
    bad = (finite == 0).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{name} holds NaN or infinite values (in {len(bad)} of {len(finite)} pictures, first in number "
            f"{bad[0]}), but every value must be a finite number from 0 to 1. An earlier step overflowed: "
            "if that was a VAE, run it in float32 (--fp32-vae)."
        )


def to_rgb(pictures: Tensor, *, background: float = BACKGROUND) -> Tensor:
    """Convert `b c h w` pictures in [0, 1] to RGB `b 3 h w`.

    Args:
        pictures: 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGBA) channels. Alpha is not premultiplied.
        background: shade behind transparent pixels.

    Raises:
        ValueError: another number of channels.
    """
    channels = pictures.shape[1]
    if channels not in (1, 2, 3, 4):
        raise ValueError(
            f"A picture has 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGBA) channels, but this one has {channels}."
        )
    colour = pictures[:, : 1 if channels < 3 else 3]
    if channels in (2, 4):
        alpha = pictures[:, -1:].clamp(0, 1)
        colour = colour * alpha + background * (1 - alpha)
    return colour if channels >= 3 else repeat(colour, "b 1 h w -> b c h w", c=3)


def checked_rgb(pictures: Tensor, name: str) -> Tensor:
    """Convert `b c h w` pictures to RGB `b 3 h w`, float32, after checking their values.

    Raises:
        ValueError: an empty batch, NaN, infinite or huge values, or a wrong number of channels; `name` is for the
            message.
    """
    if not pictures.numel():
        raise ValueError(f"{name} holds no picture (shape {tuple(pictures.shape)}), but needs at least one.")
    require_finite(pictures, name)
    lowest, highest = torch.aminmax(pictures)
    if (peak := max(-float(lowest), float(highest))) > BRIGHTEST:
        raise ValueError(
            f"{name} holds values of up to {peak:g}, but those of a picture are from 0 to 1: look at the node that "
            "made it."
        )
    return to_rgb(pictures.to(torch.float32))


def trained_size(vae: Any) -> int:
    """Return the side in pixels at which models with this VAE were trained: 128 for `FoldedVAE`, otherwise 320.

    `vae` is the host's VAE object or the network itself.
    """
    network = getattr(vae, "first_stage_model", vae)
    return FOLDED_VAE_SIZE if isinstance(network, FoldedVAE) else DEFAULT_SIZE


def resolve_side(requested: int, default: int) -> int:
    """Return the side in pixels to use: `default` for 0, otherwise the nearest positive multiple of 8.

    Raises:
        ValueError: a negative side.
    """
    if requested < 0:
        raise ValueError(
            f"A width or height is 0 (the size the model was trained at) or more, but {requested} was given."
        )
    if requested == 0:
        return default
    side = max(SIZE_STEP, (requested + SIZE_STEP // 2) // SIZE_STEP * SIZE_STEP)
    if side != requested:
        log.warning(
            "MicroCinema: the centre frame's sides must be multiples of %d; using %d instead of %d.",
            SIZE_STEP,
            side,
            requested,
        )
    return side


def centre_crop(picture: Tensor, *, aspect: float) -> Tensor:
    """Crop `b c h w` to its largest centred part with width / height = `aspect`, to the nearest pixel."""
    height, width = picture.shape[-2:]
    crop_height = min(height, max(1, round(width / aspect)))
    crop_width = min(width, max(1, round(height * aspect)))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return picture[..., top : top + crop_height, left : left + crop_width]


def resize(picture: Tensor, *, height: int, width: int) -> Tensor:
    """Resize `b c h w` with antialiased bicubic interpolation; the result is clamped to [0, 1].

    A very large picture is first reduced by area to four times the target size, because the cost of the
    antialiasing filter grows with the factor (8k to 128 pixels: 0.1 s instead of 13 s).
    """
    source_height, source_width = picture.shape[-2:]
    coarse = min(source_height, _AREA_FACTOR * height), min(source_width, _AREA_FACTOR * width)
    if coarse != (source_height, source_width):
        picture = geometry.resize(picture, coarse, interpolation="area")
    if tuple(picture.shape[-2:]) != (height, width):
        picture = geometry.resize(picture, (height, width), interpolation="bicubic", antialias=True)
    return picture.clamp(0, 1)


def pad_to_fit(picture: Tensor, *, height: int, width: int, background: float = BACKGROUND) -> Tensor:
    """Scale the whole `b c h w` picture to fit inside the frame and fill the rest with `background`."""
    scale = min(height / picture.shape[-2], width / picture.shape[-1])
    inner_height = min(height, max(1, round(picture.shape[-2] * scale)))
    inner_width = min(width, max(1, round(picture.shape[-1] * scale)))
    inner = resize(picture, height=inner_height, width=inner_width)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    sides = (left, width - inner_width - left, top, height - inner_height - top)
    return F.pad(inner, sides, value=background)


def prepare_centre_frame(pictures: Tensor, *, width: int, height: int, fit: str = "crop") -> Tensor:
    """Make the first of `b c h w` pictures in [0, 1] the centre frame, RGB `1 3 height width` in [0, 1].

    Args:
        pictures: 1 to 4 channels; transparency is laid over white.
        width, height: size in pixels.
        fit: what to do if the aspect ratio differs. "crop" keeps the middle, "pad" adds white borders,
            "stretch" distorts.

    Raises:
        ValueError: an empty batch, NaN, an unknown `fit` or a wrong number of channels.
    """
    fit = chosen(fit, FITS, "fit")
    if len(pictures) > 1:
        log.warning("MicroCinema: the centre frame got %d pictures; using the first.", len(pictures))
    picture = checked_rgb(pictures[:1], "The centre frame")
    if fit == "pad":
        return pad_to_fit(picture, height=height, width=width)
    if fit == "crop":
        picture = centre_crop(picture, aspect=width / height)
    return resize(picture, height=height, width=width)
