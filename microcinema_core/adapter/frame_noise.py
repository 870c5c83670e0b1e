"""Fresh noise for ancestral and SDE samplers that belongs to a frame, however frames are batched."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor

from .host import comfy


class FrameNoise:
    """One Brownian path per frame, seeded by the frame's own starting noise.

    So a frame that two windows share, or that another chunking puts elsewhere in the batch, draws the same
    noise at every step. Unit normal, independent between steps: what the host's default gives, which draws for
    a whole batch. The paths are made at the first draw; samplers that draw nothing pay nothing.
    """

    def __init__(self, noise: Tensor, sigmas: Tensor) -> None:
        self.noise = noise
        positive = sigmas[sigmas > 0]
        self.low, self.high = positive.min() * 0.99, sigmas.max() * 1.01
        self.device = sigmas.device
        self.paths: Any = None

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Return noise `(b f) c h w` for a step between two noise levels."""
        if self.paths is None:
            seeds = [frame_seed(frame) for frame in self.noise]
            x = self.noise.to(self.device)
            self.paths = comfy.k_diffusion.sampling.BrownianTreeNoiseSampler(
                x, self.low, self.high, seed=seeds, cpu=True
            )
        return self.paths(sigma, sigma_next).to(self.device)


def frame_seed(noise: Tensor) -> int:
    """Return a seed that is a function of a frame's starting noise `c h w`, which (seed, round, frame)
    determine.
    """
    digest = hashlib.sha256(noise.cpu().contiguous().numpy().tobytes()).digest()
    return int.from_bytes(digest[:7], "little")
