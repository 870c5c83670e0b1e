"""Interpolation in process, with small random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.host.tiny_family import settings


def interpolated(family: Any, **changes: Any) -> Tensor:
    arguments = {"rounds": 1, "lambda_": -1.0, "gamma": 0.02, "chunk": 0, "loop": False}
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


@pytest.mark.parametrize("lambda_", [0.0, 0.1])
def test_a_model_of_residuals_is_asked_for_them(
    family: Any, monkeypatch: pytest.MonkeyPatch, lambda_: float
) -> None:
    """The network runs on (y - z_c) / scale and sigma / scale; its output is scaled, then added to z_c."""
    from microcinema_core.adapter.model import Z_C

    plain = family.tsr.model
    inner = plain.model
    generator = torch.Generator().manual_seed(1)
    z_c, y = torch.randn(2, 5, 8, 8, 8, generator=generator)
    patched = family.adapter.apply_appearance(
        plain, family.tsr.appearnet, {"samples": z_c}, lambda_=lambda_, gamma=0.0
    )
    asked: list[tuple[Tensor, Tensor]] = []
    scale, sigma = 0.5, torch.full((5,), 3.0)

    def answer(self: Any, x: Tensor, t: Tensor, *rest: Any, **named: Any) -> Tensor:
        asked.append((x, t))
        return torch.ones_like(x)

    monkeypatch.setattr("comfy.model_base.BaseModel._apply_model", answer)
    monkeypatch.setattr(inner, "current_patcher", patched)
    monkeypatch.setattr(inner, "info", replace(inner.info, spec=replace(inner.info.spec, residual=scale)))
    in_model_space = inner.process_latent_in(z_c)
    got = inner._apply_model(y, sigma, **{Z_C: in_model_space})
    assert_close(got, in_model_space + scale)
    ((x, t),) = asked
    assert_close(t, sigma / scale)
    assert_close(x, (y - in_model_space) / scale + 6.0 * lambda_ * in_model_space)


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
