"""Appearance attention in the host: its sampling is the core's, and TSR's windows see their own two frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from torch.testing import assert_close

from devtools.check import goldens, tiny
from tests.host.test_goldens_host import difference, sampled
from tests.host.test_models_tsr import interpolated
from tests.host.tiny_family import load_family


@pytest.fixture
def appearance_attention(comfy_in_process: Path, tmp_path: Path) -> Any:
    return load_family(tmp_path, unet=tiny.ATTENDING)


def test_the_host_samples_what_the_core_does(appearance_attention: Any) -> None:
    from microcinema_core.files.checkpoint import read_checkpoint
    from microcinema_core.files.load_networks import load_video_model

    given = goldens.inputs()
    clip = load_video_model(read_checkpoint(appearance_attention.folder / "tiny_base.safetensors")).sample(
        given["centre"],
        given["positive"],
        given["negative"],
        frames=goldens.FRAMES,
        steps=goldens.STEPS,
        guidance_scale=goldens.CFG,
        seed=goldens.SEED,
        gamma=goldens.GAMMA,
    )
    base, centre = appearance_attention.base, {"samples": given["centre"]}
    model = appearance_attention.adapter.apply_appearance(
        base.model, base.appearnet, centre, gamma=goldens.GAMMA
    )
    assert difference(sampled(model, "euler"), rearrange(clip, "1 f c h w -> f c h w")) < 1e-3
    unseen = appearance_attention.adapter.apply_appearance(
        base.model, base.appearnet, centre, gamma=goldens.GAMMA, strength=0.0
    )
    assert difference(sampled(unseen, "euler"), rearrange(clip, "1 f c h w -> f c h w")) > 1e-2


def test_windows_of_tsr_do_not_see_each_other(appearance_attention: Any) -> None:
    one, two = (interpolated(appearance_attention, chunk=chunk) for chunk in (1, 2))
    assert_close(one, two, rtol=1e-4, atol=1e-4 * float(one.std()))
    inner = appearance_attention.tsr.model.model.diffusion_model
    layers = [m for m in inner.modules() if type(m).__name__ == "AppearanceAttention"]
    assert len(layers) == 3
    with torch.no_grad():
        for layer in layers:
            layer.to_out.weight.zero_()
    assert not torch.equal(interpolated(appearance_attention, chunk=1), one)
