"""The centre frame: one picture of any size, aspect and kind, made into what the models were trained on.

The centre frame is the reference of the whole video (section 3.1 of the paper): what the other frames look
like comes from it. The paper takes it from a text-to-image model at the model's own size; what happens to a
user's own picture is decided here.
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

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[str, ...] = get_args(Fit)

SIZE_STEP = 8
"""Sizes are multiples of this: every VAE here works on blocks of 8 x 8 pixels."""

DEFAULT_SIZE = 320
"""Side in pixels that the paper's models were trained at, and so that of an inflated Stable Diffusion."""

MINI_SIZE = 128
"""Side in pixels of the mini family's pictures."""

BACKGROUND = 1.0
"""Shade, 0 to 1, behind transparent pixels and beside a padded picture: white.

The same for both, so that a cut-out drawing that is padded shows no seam.
"""

_AREA_FACTOR = 4

log = logging.getLogger(__name__)


def require_finite(pictures: Tensor, what: str) -> None:
    """Raise ValueError if `pictures`, `(b, c, h, w)`, hold a NaN or an infinity; `what` names them."""
    finite = reduce(torch.isfinite(pictures).to(torch.uint8), "b c h w -> b", "min")
    bad = (finite == 0).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{what} holds NaN or infinite values (in {len(bad)} of {len(finite)} pictures, first in number "
            f"{bad[0]}), but needs plain numbers from 0 to 1. The step before it overflowed: if that is a "
            "VAE, run it in float32 (--fp32-vae)."
        )


def to_rgb(pictures: Tensor, *, background: float = BACKGROUND) -> Tensor:
    """Make `(b, c, h, w)` pictures of 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGBA) channels RGB.

    Values and alpha are 0 to 1; alpha is not premultiplied and is laid over a flat `background` shade. Raises
    ValueError for any other number of channels.
    """
    channels = pictures.shape[1]
    if channels not in (1, 2, 3, 4):
        raise ValueError(
            f"A picture has 1 (grey), 2, 3 (RGB) or 4 (RGBA) channels, but this one has {channels}."
        )
    colour = pictures[:, : 1 if channels < 3 else 3]
    if channels in (2, 4):
        alpha = pictures[:, -1:].clamp(0, 1)
        colour = colour * alpha + background * (1 - alpha)
    return colour if channels >= 3 else repeat(colour, "b 1 h w -> b c h w", c=3)


def plain_rgb(pictures: Tensor, what: str) -> Tensor:
    """RGB float32 `(b, 3, h, w)` of pictures of 1 to 4 channels.

    Raises ValueError, naming `what`, if there is none or one is not finite.
    """
    if not pictures.numel():
        raise ValueError(f"{what} holds no picture (shape {tuple(pictures.shape)}); at least one is needed.")
    require_finite(pictures, what)
    return to_rgb(pictures.to(torch.float32))


def trained_size(vae: Any) -> int:
    """Side in pixels that the models of this VAE object of the host were trained at: mini 128, others 320."""
    first_stage = getattr(vae, "first_stage_model", vae)
    return MINI_SIZE if isinstance(first_stage, FoldedVAE) else DEFAULT_SIZE


def whole_size(asked: int, default: int) -> int:
    """The side in pixels for `asked`: `default` for 0, otherwise the nearest multiple of 8 above 0."""
    if asked < 0:
        raise ValueError(f"A width or height is 0 (the model's own) or more, but {asked} was given.")
    if asked == 0:
        return default
    size = max(SIZE_STEP, (asked + SIZE_STEP // 2) // SIZE_STEP * SIZE_STEP)
    if size != asked:
        log.warning(
            "MicroCinema: a centre frame's side must be a multiple of %d: %d, not %d.", SIZE_STEP, size, asked
        )
    return size


def centre_crop(picture: Tensor, *, aspect: float) -> Tensor:
    """The largest centred part of `(b, c, h, w)` whose width / height is `aspect`, to the nearest pixel."""
    height, width = picture.shape[-2:]
    crop_height = min(height, max(1, round(width / aspect)))
    crop_width = min(width, max(1, round(height * aspect)))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return picture[..., top : top + crop_height, left : left + crop_width]


def resize(picture: Tensor, *, height: int, width: int) -> Tensor:
    """Resize `(b, c, h, w)` by antialiased bicubic interpolation; values stay within 0 to 1.

    A very large picture is first reduced by area to four times the goal, as the cost of the antialiasing
    filter grows with the factor (8k to 128 pixels: 13 s without, 0.1 s with).
    """
    have_height, have_width = picture.shape[-2:]
    coarse = min(have_height, _AREA_FACTOR * height), min(have_width, _AREA_FACTOR * width)
    if coarse != (have_height, have_width):
        picture = geometry.resize(picture, coarse, interpolation="area")
    if tuple(picture.shape[-2:]) != (height, width):
        picture = geometry.resize(picture, (height, width), interpolation="bicubic", antialias=True)
    return picture.clamp(0, 1)


def pad_to_fit(picture: Tensor, *, height: int, width: int, background: float = BACKGROUND) -> Tensor:
    """Shrink or grow the whole `(b, c, h, w)` picture into the frame and fill the rest with `background`."""
    scale = min(height / picture.shape[-2], width / picture.shape[-1])
    inner_height = min(height, max(1, round(picture.shape[-2] * scale)))
    inner_width = min(width, max(1, round(picture.shape[-1] * scale)))
    inner = resize(picture, height=inner_height, width=inner_width)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    sides = (left, width - inner_width - left, top, height - inner_height - top)
    return F.pad(inner, sides, value=background)


def prepare_centre_frame(pictures: Tensor, *, width: int, height: int, fit: str = "crop") -> Tensor:
    """Make the first of `(b, c, h, w)` pictures, 0 to 1, the centre frame `(1, 3, height, width)`, 0 to 1.

    `fit` says what happens if the aspect differs: "crop" keeps the middle, "pad" keeps everything on a white
    ground, "stretch" distorts. Transparency is laid over white. Raises ValueError for an empty batch, NaN, an
    unknown `fit` or number of channels.
    """
    if fit not in FITS:
        raise ValueError(f"fit is one of {', '.join(FITS)}, but {fit!r} was given.")
    if len(pictures) > 1:
        log.warning("MicroCinema: %d pictures came as the centre frame; the first is taken.", len(pictures))
    picture = plain_rgb(pictures[:1], "The centre frame")
    if fit == "pad":
        return pad_to_fit(picture, height=height, width=width)
    if fit == "crop":
        picture = centre_crop(picture, aspect=width / height)
    return resize(picture, height=height, width=width)
