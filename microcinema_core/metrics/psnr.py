"""PSNR and motion of RGB pictures in [-1, 1]."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor


def decibels(error: Tensor) -> Tensor:
    """Convert mean squared errors, elementwise, to PSNR in dB.

    The mean of several PSNRs is not the PSNR of their mean error.
    """
    return 10 * torch.log10(4 / error)


def psnr(pictures: Tensor, real: Tensor) -> Tensor:
    """Return the PSNR in dB of pictures of any one shape, over all pixels together."""
    return decibels((pictures - real).square().mean())


def frame_difference(clips: Tensor) -> Tensor:
    """Return the mean absolute difference of consecutive frames of clips `b f c h w`, by clip (b,)."""
    return reduce(clips.diff(dim=1).abs(), "b f c h w -> b", "mean")
