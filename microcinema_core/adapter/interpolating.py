"""TSR with the host's samplers: windows between key frames, as many at once as fit in memory."""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..config import WindowShape, centre_index
from ..diffusion import tsr
from .appearance import OWN, AppearNetHandle, apply_appearance
from .frame_conditioning import of_frames
from .host import comfy, latent_preview
from .memory import free_unused_memory, is_out_of_memory
from .network import FRAMES, feature_memory
from .remaining_time import RemainingTime
from .sampling import SamplerSettings, noise_levels, require_role, settled, warn_of_disagreement
from .starting_noise import checked_latent

log = logging.getLogger(__name__)

CPU_CHUNK = 4
"""Most windows at once on a CPU: more are no faster, and a cancel takes effect only after the running step."""


def interpolate_video(
    model: Any,
    appearnet: AppearNetHandle,
    key_frames: dict[str, Tensor],
    settings: SamplerSettings,
    *,
    rounds: int,
    lambda_: float = OWN,
    gamma: float = OWN,
    end_percent: float | None = None,
    chunk: int = 0,
    features: Tensor | None = None,
) -> dict[str, Tensor]:
    """Interpolate between key frames; they come back bit for bit in the LATENT of all frames.

    Args:
        model: a MODEL of role tsr.
        appearnet: its AppearNet, whose weights set the shape of the windows.
        key_frames: LATENT of at least two frames.
        settings: the sampler's inputs.
        rounds: 1 for `window.factor` times the frame rate, 2 for its square.
        lambda_, gamma, end_percent: as for `apply_appearance`.
        chunk: windows sampled at once; 0 lets free memory decide.
        features: CLIP vision's features of one picture for all windows, or of each key frame, for weights that take
            them.

    Raises:
        ValueError: a MODEL of another role, features of another number of pictures, or as for `tsr.interpolate` and
            `apply_appearance`.
    """
    inner = require_role(model, "tsr", "MicroCinema Interpolate Frames")
    settings, model = settled(settings, inner.spec), _without_context_windows(model)
    warn_of_disagreement(appearnet.name, inner.spec, settings, **({"gamma": gamma} if gamma >= 0 else {}))
    keys = checked_latent(key_frames, inner.latent_format.latent_channels, "key_frames")
    steps = noise_levels(model, settings)
    shape = appearnet.spec.window
    total = _total_windows(keys.shape[0], rounds, shape)
    finished = tsr.frames_after(keys.shape[0], rounds, shape.factor)
    _require_features_of_keys(features, keys.shape[0])
    progress = WindowProgress(model, windows=total, steps=len(steps) - 1)
    batch_size = WindowBatchSize(model, appearnet, keys.shape[1:], requested=chunk)

    def sample(windows: tsr.Windows) -> Tensor:
        count = windows.noise.shape[0] // windows.frames
        patched = apply_appearance(
            model,
            appearnet,
            {"samples": windows.appearance},
            lambda_=lambda_,
            gamma=gamma,
            end_percent=end_percent,
            windows=(windows.frames, windows.given),
            features=_of_first_keys(features, windows, (finished - 1) // (keys.shape[0] - 1)),
        )
        patched.model_options["transformer_options"][FRAMES] = windows.frames
        try:
            made = _sample_windows(
                patched,
                windows,
                _of_windows(settings, windows, finished),
                steps,
                progress.callback(count, windows.frames),
            )
        except RuntimeError as error:
            if count == 1 or not is_out_of_memory(error):
                raise
        else:
            progress.finish(count)
            return made
        batch_size.halve(count)
        free_unused_memory()
        return torch.cat([sample(half) for half in windows.halves()])

    made = tsr.interpolate(keys, sample, shape=shape, rounds=rounds, seed=settings.seed, chunk=batch_size)
    return {"samples": made.to(comfy.model_management.intermediate_device())}


def _of_windows(settings: SamplerSettings, windows: tsr.Windows, finished: int) -> SamplerSettings:
    """Return settings whose texts, masks and hints are those of the windows' frames."""
    return replace(
        settings,
        positive=of_frames(settings.positive, windows.index, finished, "positive"),
        negative=of_frames(settings.negative, windows.index, finished, "negative"),
    )


def _require_features_of_keys(features: Tensor | None, keys: int) -> None:
    """Refuse features of neither one picture nor each key frame.

    Raises:
        ValueError: another number of pictures.
    """
    if features is not None and features.shape[0] not in (1, keys):
        raise ValueError(
            f"clip_vision_output holds {features.shape[0]} pictures and key_frames {keys}: encode the same pictures, "
            "or one for all."
        )


def _of_first_keys(features: Tensor | None, windows: tsr.Windows, stride: int) -> Tensor | None:
    """Return the features of the key frame at or before each window's first frame.

    Args:
        features: of one picture, or of each key frame.
        windows: the windows.
        stride: frames of the finished video between two key frames.
    """
    first = windows.index[:: windows.frames] // stride
    if features is None:
        return None
    return features[first] if features.shape[0] > 1 else features.expand(len(first), -1, -1)


def _without_context_windows(model: Any) -> Any:
    """Return the MODEL without context windows, which would cut through those of TSR."""
    if "context_handler" not in model.model_options:
        return model
    log.info("MicroCinema TSR: the MODEL's context windows are left out, because TSR has windows of its own.")
    clone = model.clone()
    del clone.model_options["context_handler"]
    return clone


def _sample_windows(
    patched: Any, windows: tsr.Windows, settings: SamplerSettings, sigmas: Tensor, callback: Any
) -> Tensor:
    """Sample a batch of windows; noise that the sampler adds belongs to a frame, as its starting noise does."""
    return comfy.sample.sample_custom(
        patched,
        windows.noise,
        settings.cfg,
        _sampler(settings.sampler_name, FrameNoise(windows.noise, sigmas)),
        sigmas,
        settings.positive,
        settings.negative,
        windows.latents,
        noise_mask=windows.mask,
        callback=callback,
        disable_pbar=True,
        seed=settings.seed,
    )


def _sampler(name: str, noise_sampler: FrameNoise) -> Any:
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


def _total_windows(keys: int, rounds: int, shape: WindowShape) -> int:
    counts = (tsr.frames_after(keys, done, shape.factor) for done in range(rounds))
    return sum(len(tsr.window_starts(count, shape)) for count in counts if count > 1)


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
        shape: `c h w` of a frame's latents.
        requested: number of windows; 0 lets free memory decide.
    """

    def __init__(self, model: Any, appearnet: AppearNetHandle, shape: torch.Size, *, requested: int) -> None:
        self.model, self.appearnet, self.shape, self.limit = model, appearnet, shape, requested or None

    def __call__(self, left: int) -> int:
        """Return the number of windows for the next batch, at least 1 and at most those that are left."""
        return max(1, min(left, self._estimated() if self.limit is None else self.limit))

    def halve(self, windows: int) -> None:
        """Set the limit to half of a number of windows that did not fit."""
        self.limit = max(1, windows // 2)

    def _estimated(self) -> int:
        device = self.model.load_device
        window = [2 * self.appearnet.spec.window.frames, *self.shape]
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
