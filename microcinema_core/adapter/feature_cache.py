"""AppearNet at run time: evaluated on as few frames as is exact, and once per sampling run where nothing
changes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..networks.appearnet import AppearNet
from ..networks.injection import Injection
from .host import comfy

APPEARANCE = "microcinema_appearance"
FRAMES = "microcinema_frames"
"""Keys in the host's transformer_options: how to inject, and the frames of one video."""
NAME = "microcinema_name"
"""A tensor's attribute that says what it holds: within a run, equal names mean equal latents. What any operation makes
of such a tensor is another one, without a name; nothing writes into one."""


class AppearanceCond(comfy.conds.CONDNoiseShape):
    """Appearance latents of one conditioning entry, which the host crops, repeats and concatenates at each step.

    What comes out is named by what was done to which entry's, so that no step has to compare pictures: on a GPU the
    host would wait for the device each time.
    """

    def __init__(self, cond: Tensor, name: Hashable = None) -> None:
        super().__init__(cond)
        self.name = name

    def process_cond(self, batch_size: int, area: Any, **options: Any) -> AppearanceCond:
        """Return the latents of an area, as many as the batch has frames."""
        made = super().process_cond(batch_size, area, **options)
        if self.name is not None:
            made.name = (self.name, batch_size, None if area is None else tuple(area))
        return made

    def concat(self, others: list[AppearanceCond]) -> Tensor:
        """Return the latents of several branches in one batch."""
        names = tuple(part.name for part in (self, *others))
        return named(super().concat(others), None if None in names else names)


def named(latents: Tensor, name: Hashable) -> Tensor:
    """Return the same tensor with a name, or with none."""
    setattr(latents, NAME, name)
    return latents


def name_of(latents: Tensor) -> Hashable:
    """Return a tensor's name, None where it has none."""
    return getattr(latents, NAME, None)


@dataclass
class Entry:
    """An injection and what it was made for; `names` are those of latents found to be equal to these."""

    z_c: Tensor
    strength: float
    branches: int
    injection: Injection
    names: set[Hashable]


@dataclass
class FeatureCache:
    """Injections of one sampling run, found by the name of their latents. Where that is new or missing, latents are
    compared, so that areas and context windows never meet."""

    limit: int = 8
    entries: list[Entry] = field(default_factory=list)

    def find(self, z_c: Tensor, strength: float, branches: int, name: Hashable) -> Injection | None:
        """Return the injection of exactly these appearance latents, if it was made in this run."""
        wanted = (strength, branches, z_c.shape, z_c.dtype)
        same = [e for e in self.entries if (e.strength, e.branches, e.z_c.shape, e.z_c.dtype) == wanted]
        for entry in same:
            if name in entry.names:
                return entry.injection
        for entry in same:
            if torch.equal(entry.z_c, z_c):
                entry.names |= _known(name)
                return entry.injection
        return None

    def keep(self, z_c: Tensor, strength: float, branches: int, name: Hashable, injection: Injection) -> None:
        """Remember an injection while there is room. What came first stays: steps ask for all in turn, and would
        find nothing any more if each took the place of the one that is asked for next."""
        if len(self.entries) < self.limit:
            self.entries.append(Entry(z_c.clone(), strength, branches, injection, _known(name)))

    def clear(self) -> None:
        """Forget everything; called as a run starts and as it ends."""
        self.entries.clear()


def _known(name: Hashable) -> set[Hashable]:
    return set() if name is None else {name}


@dataclass(frozen=True)
class AppearanceCall:
    """One call's way from appearance latents to an Injection.

    still: whether all frames of a video share one centre frame, so that one frame stands for all.
    """

    net: AppearNet
    strength: float
    still: bool
    cache: FeatureCache

    @torch.compiler.disable  # what is in the cache changes; a compiled graph would hold on to what it once found there
    def injection(
        self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, *, frames: int, branches: int
    ) -> Injection:
        """Return what AppearNet injects for appearance latents `(branches videos frames) c h w`."""
        count, name = frames, name_of(z_c)
        if self.still and self._shared(timesteps, context, frames):
            z_c, timesteps = z_c[::frames], timesteps[::frames]
            context = None if context is None else context[::frames]
            count = 1
        if not self.net.per_clip:
            return self._compute(z_c, timesteps, context, count)
        kept = self.cache.find(z_c, self.strength, branches, name)
        if kept is None:
            kept = self._once_for_all_branches(z_c, timesteps, context, count, branches)
            self.cache.keep(z_c, self.strength, branches, name, kept)
        return kept

    def _shared(self, timesteps: Tensor, context: Tensor | None, frames: int) -> bool:
        """Whether what AppearNet sees beside the picture is the same for all frames of a video."""
        config = self.net.config
        return not (
            (config.time_conditioned and _differs(timesteps, frames))
            or (config.text_conditioned and context is not None and _differs(context, frames))
        )

    def _once_for_all_branches(
        self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, frames: int, branches: int
    ) -> Injection:
        """Compute what is not in the cache; latents are compared, once a run for each set of them."""
        first = z_c[: z_c.shape[0] // branches]
        if branches == 1 or not torch.equal(z_c, first.repeat(branches, 1, 1, 1)):
            return self._compute(z_c, timesteps, context, frames)
        context = None if context is None else context[: first.shape[0]]
        return self._compute(first, timesteps[: first.shape[0]], context, frames)

    def _compute(self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, frames: int) -> Injection:
        features = self.net.features(z_c, timesteps, context, frames=frames)
        return self.net.inject(features, frames=frames, strength=self.strength)


def _differs(value: Tensor, frames: int) -> bool:
    """Whether frames of a video see different values.

    Compares at each step, so that a GPU is waited for; asked only for an AppearNet that sees time or text, which is
    evaluated at each step.
    """
    clips = value.unflatten(0, (-1, frames))
    return not torch.equal(clips, clips[:, :1].expand_as(clips))
