"""Interpolation in process, with small random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from microcinema_core.evaluate.family import blended
from tests.host.tiny_family import settings


def interpolated(family: Any, **changes: Any) -> Tensor:
    arguments = {"rounds": 1, "lambda_": -1.0, "gamma": 0.02, "chunk": 0}
    run = settings(family, **{key: changes.pop(key) for key in list(changes) if key not in arguments})
    with torch.inference_mode():
        return family.adapter.interpolate_video(
            family.tsr.model, family.tsr.appearnet, family.keys, run, **(arguments | changes)
        )["samples"]


@pytest.mark.parametrize(("rounds", "frames"), [(1, 9), (2, 33)])
def test_tsr_keeps_the_given_frames(family: Any, rounds: int, frames: int) -> None:
    out = interpolated(family, rounds=rounds, steps=1)
    assert out.shape[0] == frames
    assert torch.equal(out[:: 4**rounds], family.keys["samples"])


@pytest.mark.parametrize("sampler_name", ["euler", "euler_ancestral", "dpmpp_2m_sde", "ddim"])
def test_chunks_change_nothing(family: Any, sampler_name: str) -> None:
    one, two = (interpolated(family, sampler_name=sampler_name, chunk=chunk) for chunk in (1, 2))
    assert_close(one, two, rtol=1e-4, atol=1e-4 * float(one.std()))


def test_tsr_seeds(family: Any) -> None:
    assert torch.equal(interpolated(family, seed=3), interpolated(family, seed=3))
    assert not torch.equal(interpolated(family, seed=3), interpolated(family, seed=4))


def test_a_model_of_residuals_moves_from_the_blend(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blend = blended(family.keys["samples"][None])[0]
    inner = family.tsr.model.model
    made = {}
    for scale in (0.5, 1.0):
        monkeypatch.setattr(inner, "info", replace(inner.info, residual=scale))
        made[scale] = interpolated(family)
        assert torch.equal(made[scale], interpolated(family, gamma=0.5, **{"lambda_": 0.1})), "no prior"
    assert (made[1.0] - blend).abs().max() > 0.1
    assert_close(made[1.0] - blend, 2 * (made[0.5] - blend), rtol=1e-4, atol=1e-4)


def test_previews_of_residuals_show_frames(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Tensor] = []

    class Previewer:
        def decode_latent_to_preview_image(self, kind: str, latent: Tensor) -> None:
            shown.append(latent)

    monkeypatch.setattr(
        "microcinema_core.adapter.interpolating.latent_preview.get_previewer", lambda *_: Previewer()
    )
    inner = family.tsr.model.model
    monkeypatch.setattr(inner, "info", replace(inner.info, residual=1e-6))
    interpolated(family)
    middle = family.keys["samples"][:2].mean(0, keepdim=True)
    assert shown
    assert_close(shown[0].cpu(), inner.process_latent_in(middle), rtol=1e-4, atol=1e-4)


def test_tsr_needs_two_frames_and_a_tsr_model(family: Any) -> None:
    run, arguments = settings(family), {"rounds": 1, "lambda_": -1.0, "gamma": 0.02}
    with pytest.raises(ValueError, match="at least 2"):
        family.adapter.interpolate_video(
            family.tsr.model, family.tsr.appearnet, family.centre, run, **arguments
        )
    with pytest.raises(ValueError, match=r"'base'.*'tsr'"):
        family.adapter.interpolate_video(
            family.base.model, family.base.appearnet, family.keys, run, **arguments
        )
    with pytest.raises(ValueError, match=r"'tsr'.*'base'"):
        family.adapter.sample_video(
            family.tsr.model, family.tsr.appearnet, family.centre, run, frames=9, lambda_=-1, gamma=0
        )
