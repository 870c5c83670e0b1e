"""What figures of pictures in [-1, 1] are made of."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor


def decibels(error: Tensor) -> Tensor:
    """PSNR of a mean squared error, or of several. The mean of PSNRs is not the PSNR of the mean error."""
    return 10 * torch.log10(4 / error)


def psnr(pictures: Tensor, real: Tensor) -> Tensor:
    """In dB, over all pixels of all pictures."""
    return decibels((pictures - real).square().mean())


def motion(clips: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring frames of `b f c h w`, by clip."""
    return reduce(clips.diff(dim=1).abs(), "b f c h w -> b", "mean")
