"""TSR by the host: pairs of key frames, as many at once as memory holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..diffusion import tsr
from .appearance import AppearNetHandle, apply_appearance, checked_latent
from .frame_noise import FrameNoise
from .host import comfy, latent_preview
from .memory import forget_unused, is_out_of_memory
from .network import FRAMES
from .sampling import SamplerSettings, require_role

CPU_CHUNK = 4
"""Pairs at once on a CPU: more are no faster there, and a cancel must wait for the step that runs."""


def interpolate_video(
    model: Any,
    appearnet: AppearNetHandle,
    key_frames: dict[str, Tensor],
    settings: SamplerSettings,
    *,
    rounds: int,
    lambda_: float,
    gamma: float,
    chunk: int = 0,
) -> dict[str, Tensor]:
    """Return the LATENT of all frames; the given ones are in it bit for bit.

    Args:
        model: MODEL of role tsr.
        key_frames: LATENT of at least two frames.
        rounds: 1 for four times the frames a second, 2 for sixteen.
        chunk: pairs sampled at once; 0 lets free memory decide.

    Raises:
        ValueError: fewer than two key frames, a MODEL of another role, or what `apply_appearance` refuses.
    """
    inner = require_role(model, "tsr", "MicroCinema TSR")
    keys = checked_latent(key_frames, inner.latent_format.latent_channels, "key_frames")
    steps = _sigmas(model, settings)
    progress = PairProgress(model, pairs=_total_pairs(keys.shape[0], rounds), steps=len(steps) - 1)
    at_once = PairsAtOnce(model, keys.shape[1:], asked=chunk)

    def sample(windows: tsr.Windows) -> Tensor:
        pairs = windows.noise.shape[0] // tsr.WINDOW
        appearance = {"samples": windows.appearance}
        patched = apply_appearance(model, appearnet, appearance, lambda_=lambda_, gamma=gamma)
        patched.model_options["transformer_options"][FRAMES] = tsr.WINDOW
        try:
            made = _sample_windows(patched, windows, settings, steps, progress.callback(pairs))
        except RuntimeError as error:
            if pairs == 1 or not is_out_of_memory(error):
                raise
        else:
            progress.finish(pairs)
            return made
        at_once.halve(pairs)
        forget_unused()
        return torch.cat([sample(half) for half in windows.halves()])

    made = tsr.interpolate(keys, sample, rounds=rounds, seed=settings.seed, chunk=at_once)
    return {"samples": made.to(comfy.model_management.intermediate_device())}


def _sigmas(model: Any, settings: SamplerSettings) -> Tensor:
    sampler = comfy.samplers.KSampler(
        model,
        steps=settings.steps,
        device=model.load_device,
        sampler=settings.sampler_name,
        scheduler=settings.scheduler,
        model_options=model.model_options,
    )
    return sampler.sigmas


def _sample_windows(
    patched: Any, windows: tsr.Windows, settings: SamplerSettings, sigmas: Tensor, callback: Any
) -> Tensor:
    """Sample a batch of windows so that each frame's noise, fresh noise included, is its own."""
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
    """Return the host's sampler, its fresh noise drawn frame by frame where it draws any.

    The stock ddim is euler with another draw for given regions, a draw that would depend on the chunk; TSR's
    given
    frames have noise of their own, so euler it is.
    """
    if name == "ddim":
        return comfy.samplers.sampler_object("euler")
    sampler = comfy.samplers.sampler_object(name)
    if "noise_sampler" in inspect.signature(sampler.sampler_function).parameters:
        sampler.extra_options = {**sampler.extra_options, "noise_sampler": noise_sampler}
    return sampler


def _total_pairs(keys: int, rounds: int) -> int:
    return sum(tsr.frames_after(keys, done) - 1 for done in range(rounds))


class PairsAtOnce:
    """How many pairs to sample together: what was asked for, else what the host's own estimate has room for, both
    branches together; never as many again as memory had no room for."""

    def __init__(self, model: Any, shape: torch.Size, *, asked: int) -> None:
        self.model, self.shape, self.most = model, shape, asked or None

    def __call__(self, left: int) -> int:
        return max(1, min(left, self._that_fit() if self.most is None else self.most))

    def halve(self, pairs: int) -> None:
        """Remember that so many did not fit."""
        self.most = max(1, pairs // 2)

    def _that_fit(self) -> int:
        device = self.model.load_device
        one = self.model.memory_required([2 * tsr.WINDOW, *self.shape])
        count = int(comfy.model_management.get_free_memory(device) / (1.5 * one))
        return min(count, CPU_CHUNK) if comfy.model_management.is_device_cpu(device) else count


class PairProgress:
    """One progress bar over all pairs and rounds, with previews as the stock samplers show them."""

    def __init__(self, model: Any, *, pairs: int, steps: int) -> None:
        self.steps, self.total, self.done = steps, pairs * steps, 0
        self.bar = comfy.utils.ProgressBar(self.total)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(self, pairs: int) -> Callable[[int, Tensor, Tensor, int], None]:
        """Return the sampler's callback for a chunk of pairs."""

        def report(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
            picture = None
            if self.previewer:
                middle = x0[tsr.WINDOW // 2 : tsr.WINDOW // 2 + 1]
                picture = self.previewer.decode_latent_to_preview_image("JPEG", middle)
            self.bar.update_absolute(self.done + (step + 1) * pairs, self.total, picture)

        return report

    def finish(self, pairs: int) -> None:
        """Count a chunk as done."""
        self.done += pairs * self.steps
