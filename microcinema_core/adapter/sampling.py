"""Sampling by the host: key frames as the stock KSampler would make them."""

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
    """Return (LATENT of `frames` key frames, their fps): Apply AppearNet, an empty latent and KSampler in one.

    Raises:
        ValueError: a MODEL of another role, more than one centre frame, or what `apply_appearance` refuses.
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
        callback=in_turn(latent_preview.prepare_callback(patched, settings.steps)),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=settings.seed,
    )
    return {"samples": samples}, inner.info.fps if inner.info else 2.0


def in_turn(callback: Callable[..., None]) -> Callable[..., None]:
    """Return a sampling callback whose preview shows the next frame at each step, and so moves.

    The host makes one still picture a step, of the batch's first frame; it has no way to send an animated one.
    """

    def show(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        callback(step, x0.roll(-(step % len(x0)), dims=0), x, total_steps)

    return show


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
