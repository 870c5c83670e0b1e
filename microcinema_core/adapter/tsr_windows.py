"""What TSR's windows need while they are sampled: noise of their frames, a number that fits in memory, progress."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..config import centre_index
from .appearance import AppearNetHandle
from .host import comfy, latent_preview
from .network import feature_memory
from .remaining_time import RemainingTime

CPU_CHUNK = 4
"""Most windows at once on a CPU: more are no faster, and a cancel takes effect only after the running step."""


def window_sampler(name: str, noise_sampler: FrameNoise) -> Any:
    """Return the host's sampler, with a noise sampler of our own where it takes one.

    The stock ddim is euler with another noise draw for the masked regions, which would depend on the batch. TSR's
    key frames have noise of their own, so ddim becomes euler.
    """
    if name == "ddim":
        return comfy.samplers.sampler_object("euler")
    sampler = comfy.samplers.sampler_object(name)
    if "noise_sampler" in inspect.signature(sampler.sampler_function).parameters:
        sampler.extra_options = {**sampler.extra_options, "noise_sampler": noise_sampler}
    return sampler


class FrameNoise:
    """Fresh noise for ancestral and SDE samplers: one Brownian path per frame, seeded by the frame's starting noise.

    So a frame draws the same noise at every step, also where two windows share it or where another chunk size moves it
    within the batch. The noise is unit normal and independent between steps, as the host's default, which draws for a
    whole batch. The paths are made at the first draw, so that samplers that draw nothing pay nothing.

    Args:
        noise: starting noise `(b f) c h w`.
        sigmas: the run's noise levels.
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
    """Return a seed that depends only on a frame's starting noise `c h w`, so on (seed, round, frame)."""
    digest = hashlib.sha256(noise.cpu().contiguous().numpy().tobytes()).digest()
    return int.from_bytes(digest[:7], "little")


class WindowBatchSize:
    """How many windows to sample at once: the requested number, else what fits by the host's own memory estimate.

    The estimate counts both guidance branches. A size that ran out of memory is not tried again.

    Args:
        model: the MODEL.
        appearnet: its AppearNet, whose weights set the windows' length.
        requested: number of windows; 0 lets free memory decide.
    """

    def __init__(self, model: Any, appearnet: AppearNetHandle, *, requested: int) -> None:
        self.model, self.appearnet, self.limit = model, appearnet, requested or None

    def __call__(self, left: int, shape: Sequence[int]) -> int:
        """Return the number of windows for the next batch, at least 1 and at most those that are left.

        Args:
            left: windows that are left.
            shape: `c h w` of a frame's latents.
        """
        return max(1, min(left, self._estimated(shape) if self.limit is None else self.limit))

    def halve(self, windows: int) -> None:
        """Set the limit to half of a number of windows that did not fit."""
        self.limit = max(1, windows // 2)

    def _estimated(self, shape: Sequence[int]) -> int:
        device = self.model.load_device
        window = [2 * self.appearnet.spec.window.frames, *shape]
        one = self.model.memory_required(window) + feature_memory(self.appearnet.patcher.model, window)
        count = int(comfy.model_management.get_free_memory(device) / (1.5 * one))
        return min(count, CPU_CHUNK) if comfy.model_management.is_device_cpu(device) else count


class WindowProgress:
    """One progress bar over all windows and rounds, with previews as in the stock samplers.

    Args:
        model: the MODEL, whose latents are previewed.
        windows: windows of all rounds together.
        steps: sampling steps of each window.
    """

    def __init__(self, model: Any, *, windows: int, steps: int) -> None:
        self.steps, self.total, self.done = steps, windows * steps, 0
        self.bar = comfy.utils.ProgressBar(self.total)
        self.remaining = RemainingTime("windows", windows)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(self, windows: int, frames: int) -> Callable[[int, Tensor, Tensor, int], None]:
        """Return the sampler's callback for a batch of windows of this many frames."""

        def report(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
            picture = None
            if self.previewer:
                middle = x0[centre_index(frames) : centre_index(frames) + 1]
                picture = self.previewer.decode_latent_to_preview_image("JPEG", middle)
            done = self.done + (step + 1) * windows
            self.bar.update_absolute(done, self.total, picture)
            self.remaining.show(done / self.steps)

        return report

    def finish(self, windows: int) -> None:
        """Count a batch of windows as done."""
        self.done += windows * self.steps
