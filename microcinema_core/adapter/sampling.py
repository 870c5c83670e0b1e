"""Sampling by the host: key frames as the stock KSampler would make them, and TSR's pairs, a chunk at a
time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management as management  # type: ignore[import-not-found]
import comfy.sample  # type: ignore[import-not-found]
import comfy.samplers  # type: ignore[import-not-found]
import comfy.utils  # type: ignore[import-not-found]
import latent_preview  # type: ignore[import-not-found]
import torch
from torch import Tensor

from .. import tsr
from .appearance import AppearNetHandle, apply_appearance, checked_latent, require_microcinema
from .frame_noise import FrameNoise
from .network import FRAMES

CPU_CHUNK = 4
"""Pairs at once on a CPU: more are no faster there, and a cancel must wait for the step that runs."""


@dataclass(frozen=True)
class SamplerSettings:
    """The inputs that every stock sampler node has."""

    positive: Any
    negative: Any
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str


def samplers() -> list[str]:
    """Return the host's sampler names."""
    return list(comfy.samplers.KSampler.SAMPLERS)


def schedulers() -> list[str]:
    """Return the host's scheduler names."""
    return list(comfy.samplers.KSampler.SCHEDULERS)


def sample_video(
    model: Any,
    appearnet: AppearNetHandle,
    centre_frame: dict[str, Tensor],
    settings: SamplerSettings,
    *,
    frames: int,
    lambda_: float,
    gamma: float,
) -> tuple[dict[str, Tensor], float]:
    """Return (LATENT of `frames` key frames, their fps): Apply AppearNet, an empty latent and KSampler in "
    "one.

    Raises:
        ValueError: a MODEL of another role, more than one centre frame, or what `apply_appearance` refuses.
    """
    inner = require_role(model, "base", "MicroCinema Sampler")
    patched = apply_appearance(model, appearnet, centre_frame, lambda_=lambda_, gamma=gamma)
    centre = checked_latent(centre_frame, inner.latent_format.latent_channels, "centre_frame")
    if centre.shape[0] != 1:
        raise ValueError(f"centre_frame holds {centre.shape[0]} frames, one was expected: pick one of them.")
    dtype = getattr(management, "intermediate_dtype", lambda: torch.float32)()
    empty = torch.zeros(frames, *centre.shape[1:], device=management.intermediate_device(), dtype=dtype)
    noise = comfy.sample.prepare_noise(empty, settings.seed)
    samples = comfy.sample.sample(
        patched,
        noise,
        settings.steps,
        settings.cfg,
        settings.sampler_name,
        settings.scheduler,
        settings.positive,
        settings.negative,
        empty,
        callback=latent_preview.prepare_callback(patched, settings.steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=settings.seed,
    )
    return {"samples": samples}, inner.info.fps if inner.info else 2.0


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

    def sample(windows: tsr.Windows) -> Tensor:
        pairs = windows.noise.shape[0] // tsr.WINDOW
        appearance = {"samples": windows.appearance}
        patched = apply_appearance(model, appearnet, appearance, lambda_=lambda_, gamma=gamma)
        patched.model_options["transformer_options"][FRAMES] = tsr.WINDOW
        made = _sample_windows(patched, windows, settings, steps, progress.callback(pairs))
        progress.finish(pairs)
        return made

    limit = chunk or (lambda left: _pairs_that_fit(model, keys.shape[1:], left))
    made = tsr.interpolate(keys, sample, rounds=rounds, seed=settings.seed, chunk=limit)
    return {"samples": made.to(management.intermediate_device())}


def require_role(model: Any, role: str, node: str) -> Any:
    """Return the network inside a MODEL that can do a role's work; `ValueError` says what it is instead.

    A U-Net of role unet, such as an inflated one, is taken for any role.
    """
    inner = require_microcinema(model)
    if inner.info is not None and inner.info.role not in (role, "unet"):
        raise ValueError(
            f"{inner.info.name}: this MODEL's role is {inner.info.role!r}, {node} expected one of role "
            f"{role!r}: "
            f"load a {role} file for it."
        )
    return inner


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


def _pairs_that_fit(model: Any, shape: tuple[int, ...], left: int) -> int:
    """Return how many of the pairs that are left the host's own estimate has room for, both branches
    together.
    """
    free = management.get_free_memory(model.load_device)
    one = model.memory_required([2 * tsr.WINDOW, *shape])
    count = max(1, int(free / (1.5 * one)))
    if management.is_device_cpu(model.load_device):
        count = min(count, CPU_CHUNK)
    return min(count, left)


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
