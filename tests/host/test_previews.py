"""What is seen while the sampler works."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.host.tiny_family import FRAMES, settings


def test_the_previews_walk_through_the_frames(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host decodes the first of what it is given: it is another frame at each step."""
    from microcinema_core.adapter import sampling

    shown: list[Tensor] = []
    monkeypatch.setattr(
        sampling.latent_preview, "prepare_callback", lambda *_: lambda step, x0, x, total: shown.append(x0)
    )
    steps = FRAMES + 1
    with torch.inference_mode():
        sampling.sample_video(
            family.base.model, family.base.appearnet, family.centre, settings(family, steps=steps),
            frames=FRAMES, lambda_=-1.0, gamma=0.02,
        )  # fmt: skip
    assert len(shown) == steps and all(len(x0) == FRAMES for x0 in shown)
    seen: list[int] = []
    walk = sampling.in_turn(lambda step, x0, x, total: seen.append(int(x0[0])))
    for step in range(4):
        walk(step, torch.arange(3), torch.zeros(3), 4)
    assert seen == [0, 1, 2, 0]
