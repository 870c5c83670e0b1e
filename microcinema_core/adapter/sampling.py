"""Sampling with the host's samplers: key frames, as the stock KSampler makes them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..model_spec import ModelSpec, SamplerDefaults
from ..networks.appearance_input import ANCHORS, anchor_index
from ..values import chosen, shown
from .appearance import (
    AUTO,
    OWN,
    AppearNetHandle,
    apply_appearance,
    require_microcinema,
    require_numbers,
)
from .frame_conditioning import require_finite_latents, require_rows
from .host import comfy, latent_preview
from .remaining_time import with_remaining_time
from .starting_noise import checked_latent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplerSettings:
    """The inputs of every stock sampler node; 0 steps, cfg -1 and the name `AUTO` stand for what suits the weights."""

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


def settled(settings: SamplerSettings, spec: ModelSpec) -> SamplerSettings:
    """Return settings with what suits the weights in place of everything on auto.

    Raises:
        ValueError: a sampler or scheduler that this host does not have, or a number that is not finite.
    """
    require_numbers(cfg=settings.cfg, steps=settings.steps)
    own = spec.sampling
    return replace(
        settings,
        steps=settings.steps or own.steps,
        cfg=own.cfg if settings.cfg < 0 else settings.cfg,
        sampler_name=_known("sampler_name", settings.sampler_name, own.sampler, samplers()),
        scheduler=_known("scheduler", settings.scheduler, own.scheduler, schedulers()),
    )


def noise_levels(model: Any, settings: SamplerSettings) -> Tensor:
    """Return the noise levels of a run, as the stock KSampler has them.

    Raises:
        ValueError: the host's scheduler gives none for so few steps, as kl_optimal does for one.
    """
    sampler = comfy.samplers.KSampler(
        model,
        steps=settings.steps,
        device=model.load_device,
        sampler=settings.sampler_name,
        scheduler=settings.scheduler,
        model_options=model.model_options,
    )
    if not bool(torch.isfinite(sampler.sigmas).all()):
        raise ValueError(
            f"the scheduler {settings.scheduler} has no noise levels for {settings.steps} steps: use more steps, or "
            "another scheduler."
        )
    return sampler.sigmas


def _known(input_name: str, given: str, own: str, names: list[str]) -> str:
    """Return the sampler or scheduler that was given, or the weights' own for `AUTO`, if this host has it."""
    name, by, others = (
        (own, " by the weights' recommendation", names) if given == AUTO else (given, "", [AUTO, *names])
    )
    if name not in names:
        raise ValueError(
            f"{input_name} is {shown(name)}{by}, which this ComfyUI does not have; choose {', '.join(others)}."
        )
    return name


def warn_of_disagreement(name: str, spec: ModelSpec, settings: SamplerSettings, **given: float) -> None:
    """Log a line where settings differ from those that the weights recommend.

    Args:
        name: the weights' file.
        spec: what they were trained for.
        settings: after `settled`.
        given: frames and gamma of the run, where they were set by hand.
    """
    recommended: dict[str, Any] = {"frames": spec.frames}
    chosen: dict[str, Any] = dict(given)
    if spec.sampling != SamplerDefaults():
        recommended |= {"scheduler": spec.sampling.scheduler, "gamma": spec.sampling.gamma}
        chosen["scheduler"] = settings.scheduler
    differing = [key for key in recommended if key in chosen and chosen[key] != recommended[key]]
    if differing:
        log.warning(
            "MicroCinema: %s recommends %s; here, %s. Auto takes what the weights recommend.",
            name,
            ", ".join(f"{key} {recommended[key]}" for key in differing),
            ", ".join(f"{key} is {chosen[key]}" for key in differing),
        )


def sample_video(
    model: Any,
    appearnet: AppearNetHandle,
    centre_frame: dict[str, Tensor],
    settings: SamplerSettings,
    *,
    frames: int = 0,
    lambda_: float = OWN,
    gamma: float = OWN,
    anchor: str = "centre",
    last_frame: dict[str, Tensor] | None = None,
    motion: str = AUTO,
    features: Tensor | None = None,
    hold: bool = False,
) -> tuple[dict[str, Tensor], float]:
    """Sample key frames: Apply AppearNet, an empty latent and KSampler in one.

    Args:
        model: a MODEL of role base.
        appearnet: its AppearNet.
        centre_frame: LATENT of one frame.
        settings: the sampler's inputs.
        frames: number of key frames; 0 is what the weights were trained on.
        lambda_, gamma, anchor, last_frame, motion, features: as for `apply_appearance`.
        hold: keep the pictures themselves as the frames where they stand, by the host's noise mask.

    Returns:
        The LATENT of the key frames, and their frame rate.

    Raises:
        ValueError: a MODEL of another role, one frame, more than one centre frame, or as for `settled` and
            `apply_appearance`; or latents that come out not finite.
    """
    inner = require_role(model, "base", "MicroCinema Sampler")
    settings, count = settled(settings, inner.spec), frames or inner.spec.frames
    if count < 2:
        raise ValueError(
            f"frames is {count}; expected at least 2, or 0 for what the weights were trained on."
        )
    noise_levels(model, settings)  # refuses what the stock sampler would make NaN of
    require_rows(settings.positive, count, "positive")
    require_rows(settings.negative, count, "negative")
    by_hand: dict[str, float] = {"frames": frames} if frames else {}
    by_hand |= {"gamma": gamma} if gamma >= 0 else {}
    warn_of_disagreement(appearnet.name, inner.spec, settings, **by_hand)
    patched = apply_appearance(
        model,
        appearnet,
        centre_frame,
        lambda_=lambda_,
        gamma=gamma,
        anchor=anchor,
        last_frame=last_frame,
        motion=motion,
        features=features,
    )
    centre = _checked_centre(centre_frame, inner.latent_format.latent_channels)
    held = _held_frames(centre, last_frame, anchor, count) if hold else {}
    start, mask = _start(centre, count, held)
    noise = comfy.sample.prepare_noise(start, settings.seed)
    stock = latent_preview.prepare_callback(patched, settings.steps)
    samples = comfy.sample.sample(
        patched,
        noise,
        settings.steps,
        settings.cfg,
        settings.sampler_name,
        settings.scheduler,
        settings.positive,
        settings.negative,
        start,
        noise_mask=mask,
        callback=with_remaining_time(cycle_preview_frames(stock), settings.steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=settings.seed,
    )
    for frame in held:
        samples[frame] = start[frame].to(samples)
    return {"samples": require_finite_latents(samples)}, inner.spec.fps


def _checked_centre(centre_frame: dict[str, Tensor], channels: int) -> Tensor:
    """Return the latent `1 c h w` of one frame of more than one pixel."""
    centre = checked_latent(centre_frame, channels, "centre_frame")
    if centre.shape[0] != 1:
        raise ValueError(f"centre_frame holds {centre.shape[0]} frames, one was expected: pick one of them.")
    if centre.shape[2:].numel() == 1:  # group normalisation of one value is an error of torch's
        raise ValueError("centre_frame has latents of one pixel: use a picture of 16 x 16 pixels or more.")
    return centre


def _start(centre: Tensor, frames: int, held: dict[int, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return the latents `f c h w` to start from, empty but for the held frames, and the mask that keeps those."""
    dtype = getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()
    device = comfy.model_management.intermediate_device()
    start = torch.zeros(frames, *centre.shape[1:], device=device, dtype=dtype)
    if not held:
        return start, None
    mask = torch.ones(frames, 1, 1, 1)
    for frame, picture in held.items():
        start[frame] = picture.to(start)
        mask[frame] = 0.0
    return start, mask


def _held_frames(
    centre: Tensor, last_frame: dict[str, Tensor] | None, anchor: str, frames: int
) -> dict[int, Tensor]:
    """Return the pictures `c h w` by the frames where they stand, in a video of this many frames."""
    held = {anchor_index(chosen(anchor, ANCHORS, "anchor"), frames): centre[0]}
    return held if last_frame is None else {**held, frames - 1: last_frame["samples"][0]}


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
