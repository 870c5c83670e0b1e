"""AppearNet at sampling time: run on one frame where that is exact, its features cached within a sampling run."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..networks.appearnet import AppearNet
from ..networks.injection import Injection
from .host import comfy

INJECTOR = "microcinema_appearance"
FRAMES = "microcinema_frames"
"""Keys of the host's transformer_options: the `Injector` of a call, and the number of frames of one video."""
CACHE_KEY = "microcinema_cache_key"
"""Attribute of a tensor that identifies its content: within a run, equal keys mean equal latents.

Operations on such a tensor return tensors without the attribute, and nothing writes into one in place.
"""


def with_cache_key(latents: Tensor, key: Hashable) -> Tensor:
    """Set a tensor's cache key, None for none, and return the tensor."""
    setattr(latents, CACHE_KEY, key)
    return latents


def cache_key_of(latents: Tensor) -> Hashable:
    """Return a tensor's cache key, None where it has none."""
    return getattr(latents, CACHE_KEY, None)


class AppearanceCond(comfy.conds.CONDNoiseShape):
    """Appearance latents of one conditioning entry, which the host crops, repeats and concatenates at each step.

    The cache key of the result names the entry and what the host did to it. So no step has to compare latents, which
    on a GPU would make the host wait for the device.
    """

    def __init__(self, cond: Tensor, cache_key: Hashable = None) -> None:
        super().__init__(cond)
        self.cache_key = cache_key

    def process_cond(self, batch_size: int, area: Any, **options: Any) -> AppearanceCond:
        """Return the latents cropped to an area and repeated to the batch's number of frames."""
        made = super().process_cond(batch_size, area, **options)
        if self.cache_key is not None:
            made.cache_key = (self.cache_key, batch_size, None if area is None else tuple(area))
        return made

    def concat(self, others: list[AppearanceCond]) -> Tensor:
        """Return the latents of several branches in one batch."""
        keys = tuple(part.cache_key for part in (self, *others))
        return with_cache_key(super().concat(others), None if None in keys else keys)


@dataclass
class CachedInjection:
    """An injection and what it was computed from; `keys` are the cache keys of latents found equal to `z_c`."""

    z_c: Tensor
    strength: float
    branches: int
    injection: Injection
    keys: set[Hashable]


@dataclass
class FeatureCache:
    """The injections of one sampling run, looked up by the cache key of their latents.

    Where a key is new or missing, the latents are compared, so that areas and context windows are never mixed up.
    """

    limit: int = 8
    entries: list[CachedInjection] = field(default_factory=list)

    def find(self, z_c: Tensor, strength: float, branches: int, key: Hashable) -> Injection | None:
        """Return the injection of exactly these appearance latents, if it was computed in this run."""
        wanted = (strength, branches, z_c.shape, z_c.dtype)
        same = [e for e in self.entries if (e.strength, e.branches, e.z_c.shape, e.z_c.dtype) == wanted]
        for entry in same:
            if key in entry.keys:
                return entry.injection
        for entry in same:
            if torch.equal(entry.z_c, z_c):
                entry.keys |= _key_set(key)
                return entry.injection
        return None

    def keep(self, z_c: Tensor, strength: float, branches: int, key: Hashable, injection: Injection) -> None:
        """Store an injection while there is room.

        The oldest entries stay: every step looks up all latents in the same order, so replacing entries would
        evict each one just before its next use.
        """
        if len(self.entries) < self.limit:
            self.entries.append(CachedInjection(z_c.clone(), strength, branches, injection, _key_set(key)))

    def clear(self) -> None:
        """Drop all entries; called when a run starts and when it ends."""
        self.entries.clear()


def _key_set(key: Hashable) -> set[Hashable]:
    return set() if key is None else {key}


@dataclass(frozen=True)
class Injector:
    """AppearNet with its cache, as one call of the U-Net uses it.

    Attributes:
        net: the network.
        strength: factor on everything that it injects.
        single_frame: whether all frames of a video share one centre frame, so that one frame stands for all.
        cache: the injections of this sampling run.
    """

    net: AppearNet
    strength: float
    single_frame: bool
    cache: FeatureCache

    @torch.compiler.disable  # the cache changes; a compiled graph would keep what it found there when it was traced
    def injection(
        self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, *, frames: int, branches: int
    ) -> Injection:
        """Return the injection of appearance latents `(branches videos frames) c h w`.

        Args:
            z_c: appearance latents.
            timesteps: `(branches videos frames)`.
            context: text `(branches videos frames) l d`.
            frames: frames of one video.
            branches: guidance branches in the batch.
        """
        count, key = frames, cache_key_of(z_c)
        if self.single_frame and self._same_for_all_frames(timesteps, context, frames):
            z_c, timesteps = z_c[::frames], timesteps[::frames]
            context = None if context is None else context[::frames]
            count = 1
        if not self.net.per_clip:
            return self._compute(z_c, timesteps, context, count)
        cached = self.cache.find(z_c, self.strength, branches, key)
        if cached is None:
            cached = self._compute_shared(z_c, timesteps, context, count, branches)
            self.cache.keep(z_c, self.strength, branches, key, cached)
        return cached

    def _same_for_all_frames(self, timesteps: Tensor, context: Tensor | None, frames: int) -> bool:
        """Whether frames with equal latents have equal features: AppearNet's other inputs are the same for all."""
        config = self.net.config
        return config.equal_frames_stay_equal and not (
            (config.time_conditioned and _varies_within_video(timesteps, frames))
            or (config.text_conditioned and context is not None and _varies_within_video(context, frames))
        )

    def _compute_shared(
        self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, frames: int, branches: int
    ) -> Injection:
        """Compute one injection for all guidance branches if their latents are equal, which is compared here."""
        first = z_c[: z_c.shape[0] // branches]
        if branches == 1 or not torch.equal(z_c, first.repeat(branches, 1, 1, 1)):
            return self._compute(z_c, timesteps, context, frames)
        context = None if context is None else context[: first.shape[0]]
        return self._compute(first, timesteps[: first.shape[0]], context, frames)

    def _compute(self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, frames: int) -> Injection:
        own = self.net.compute_dtype
        context = None if context is None else context.to(own)
        features = self.net.features(z_c.to(own), timesteps, context, frames=frames)
        return self.net.inject(features, frames=frames, strength=self.strength).to(z_c.dtype)


def _varies_within_video(value: Tensor, frames: int) -> bool:
    """Whether a value differs between the frames of a video.

    The comparison makes a GPU's host wait at each step. It runs only for an AppearNet that sees time or text, which is
    evaluated at each step anyway.
    """
    videos = value.unflatten(0, (-1, frames))
    return not torch.equal(videos, videos[:, :1].expand_as(videos))
