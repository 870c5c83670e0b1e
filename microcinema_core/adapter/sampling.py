"""Sampling with the host's samplers: key frames, as the stock KSampler makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .appearance import AppearNetHandle, apply_appearance, checked_latent, require_microcinema
from .host import comfy, latent_preview


@dataclass(frozen=True)
class SamplerSettings:
    """The inputs of every stock sampler node."""

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
    """Sample key frames: Apply AppearNet, an empty latent and KSampler in one.

    Args:
        model: a MODEL of role base.
        appearnet: its AppearNet.
        centre_frame: LATENT of one frame.
        settings: the sampler's inputs.
        frames: number of key frames.
        lambda_: the noise prior's lambda; -1 is the weights' own.
        gamma: share of z_c that is added to the starting noise.

    Returns:
        The LATENT of the key frames, and their frame rate.

    Raises:
        ValueError: a MODEL of another role, more than one centre frame, or as for `apply_appearance`.
    """
    inner = require_role(model, "base", "MicroCinema Sampler")
    patched = apply_appearance(model, appearnet, centre_frame, lambda_=lambda_, gamma=gamma)
    centre = checked_latent(centre_frame, inner.latent_format.latent_channels, "centre_frame")
    if centre.shape[0] != 1:
        raise ValueError(f"centre_frame holds {centre.shape[0]} frames, one was expected: pick one of them.")
    dtype = getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()
    empty = torch.zeros(
        frames, *centre.shape[1:], device=comfy.model_management.intermediate_device(), dtype=dtype
    )
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
        callback=cycle_preview_frames(latent_preview.prepare_callback(patched, settings.steps)),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=settings.seed,
    )
    return {"samples": samples}, inner.spec.fps


def cycle_preview_frames(callback: Callable[..., None]) -> Callable[..., None]:
    """Return a sampling callback whose preview shows the next frame at each step, so that it moves.

    The host previews the first frame of a batch, one image a step; it cannot send an animated one.
    """

    def show(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        callback(step, x0.roll(-(step % len(x0)), dims=0), x, total_steps)

    return show


def require_role(model: Any, role: str, node: str) -> Any:
    """Return the network inside a MODEL of a role.

    Role unet, which inflated models have, passes for every role.

    Raises:
        ValueError: another role, or a model of another family.
    """
    inner = require_microcinema(model)
    if inner.info is not None and inner.spec.role not in (role, "unet"):
        raise ValueError(
            f"{inner.info.name}: this MODEL's role is {inner.spec.role!r}, {node} expected one of role "
            f"{role!r}: load a {role} file for it."
        )
    return inner
