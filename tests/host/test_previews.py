"""Previews during sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.host.tiny_family import FRAMES, settings


def test_the_previews_walk_through_the_frames(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host decodes only the first frame, so at step k the sampler passes its frames from the k-th on."""
    from microcinema_core.adapter import sampling

    steps = FRAMES + 1

    def previews() -> list[Tensor]:
        shown: list[Tensor] = []
        monkeypatch.setattr(
            sampling.latent_preview,
            "prepare_callback",
            lambda *_: lambda step, x0, x, total: shown.append(x0.clone()),
        )
        with torch.inference_mode():
            sampling.sample_video(
                family.base.model, family.base.appearnet, family.centre, settings(family, steps=steps),
                frames=FRAMES, lambda_=-1.0, gamma=0.02,
            )  # fmt: skip
        return shown

    walking = previews()
    monkeypatch.setattr(sampling, "cycle_preview_frames", lambda callback: callback)
    still = previews()
    assert len(walking) == len(still) == steps
    for step in range(steps):
        first = step % FRAMES
        assert torch.equal(walking[step], still[step][[*range(first, FRAMES), *range(first)]]), step
        assert not torch.equal(still[step][0], still[step][1])


def test_the_walk_begins_anew_after_the_last_frame() -> None:
    from microcinema_core.adapter import sampling

    seen: list[int] = []
    walk = sampling.cycle_preview_frames(lambda step, x0, x, total: seen.append(int(x0[0])))
    for step in range(4):
        walk(step, torch.arange(3), torch.zeros(3), 4)
    assert seen == [0, 1, 2, 0]
