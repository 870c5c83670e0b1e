"""AppearNet at run time: evaluated on as few frames as is exact, and once per sampling run where nothing
changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..appearnet import AppearNet
from ..injection import Injection
from ..spatial import Modulation

APPEARANCE = "microcinema_appearance"
FRAMES = "microcinema_frames"
"""Keys in the host's transformer_options: how to inject, and the frames of one video."""


@dataclass
class FeatureCache:
    """Injections of one sampling run. Compared by content, so that areas and context windows never meet."""

    limit: int = 8
    entries: list[tuple[Tensor, float, int, Injection]] = field(default_factory=list)

    def find(self, z_c: Tensor, strength: float, branches: int) -> Injection | None:
        """Return the injection of exactly these appearance latents, if it was made in this run."""
        for key, entry_strength, entry_branches, injection in self.entries:
            same = (entry_strength, entry_branches, key.shape) == (strength, branches, z_c.shape)
            if same and key.dtype == z_c.dtype and torch.equal(key, z_c):
                return injection
        return None

    def keep(self, z_c: Tensor, strength: float, branches: int, injection: Injection) -> None:
        """Remember an injection; the oldest goes where there are too many."""
        self.entries.append((z_c.clone(), strength, branches, injection))
        del self.entries[: -self.limit]

    def clear(self) -> None:
        """Forget everything; called as a run starts and as it ends."""
        self.entries.clear()


@dataclass(frozen=True)
class AppearanceCall:
    """One call's way from appearance latents to an Injection.

    still: whether all frames of a video share one centre frame, so that one frame stands for all.
    """

    net: AppearNet
    strength: float
    still: bool
    cache: FeatureCache

    def injection(
        self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, *, frames: int, branches: int
    ) -> Injection:
        """Return what AppearNet injects for appearance latents `(branches videos frames) c h w`."""
        count = frames
        if self.still and self._shared(timesteps, context, frames):
            z_c, timesteps = z_c[::frames], timesteps[::frames]
            context = None if context is None else context[::frames]
            count = 1
        if not self.net.per_clip:
            return self._compute(z_c, timesteps, context, count)
        kept = self.cache.find(z_c, self.strength, branches)
        if kept is None:
            kept = self._once_for_all_branches(z_c, timesteps, context, count, branches)
            self.cache.keep(z_c, self.strength, branches, kept)
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
        first = z_c[: z_c.shape[0] // branches]
        if branches == 1 or not torch.equal(z_c, _tile(first, branches)):
            return self._compute(z_c, timesteps, context, frames)
        context = None if context is None else context[: first.shape[0]]
        return tile_injection(self._compute(first, timesteps[: first.shape[0]], context, frames), branches)

    def _compute(self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, frames: int) -> Injection:
        features = self.net.features(z_c, timesteps, context, frames=frames)
        return self.net.inject(features, strength=self.strength)


def tile_injection(injection: Injection, times: int) -> Injection:
    """Return the injection for `times` branches that all look at the same pictures."""
    return Injection(**{f.name: _tile(getattr(injection, f.name), times) for f in fields(Injection)})


def _tile(value: Any, times: int) -> Any:
    if isinstance(value, dict):
        return {key: _tile(item, times) for key, item in value.items()}
    if isinstance(value, Modulation):
        return Modulation(gamma=_tile(value.gamma, times), beta=_tile(value.beta, times))
    if isinstance(value, Tensor):
        rest = [1] * (value.ndim - 1)
        return value.expand(times, *value.shape[1:]) if value.shape[0] == 1 else value.repeat(times, *rest)
    return value


def _differs(value: Tensor, frames: int) -> bool:
    clips = value.unflatten(0, (-1, frames))
    return not torch.equal(clips, clips[:, :1].expand_as(clips))
