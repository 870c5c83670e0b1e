"""Appearance attention in the host: its sampling is the core's, and TSR's windows see their own two frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from devtools.check import goldens, tiny
from tests.host.test_goldens_host import difference, sampled
from tests.host.test_models_tsr import interpolated
from tests.host.tiny_family import load_family


@pytest.fixture
def attending(comfy_in_process: Path, tmp_path: Path) -> Any:
    return load_family(tmp_path, unet=tiny.ATTENDING)


def test_the_host_samples_what_the_core_does(attending: Any) -> None:
    from microcinema_core.files.checkpoint import read_checkpoint
    from microcinema_core.files.load_networks import load_video_model

    core = goldens.sample(load_video_model(read_checkpoint(attending.folder / "tiny_base.safetensors")))
    base, centre = attending.base, {"samples": goldens.inputs()["centre"]}
    model = attending.adapter.apply_appearance(base.model, base.appearnet, centre, gamma=goldens.GAMMA)
    assert difference(sampled(model, "euler"), core) < 1e-3
    unseen = attending.adapter.apply_appearance(
        base.model, base.appearnet, centre, gamma=goldens.GAMMA, strength=0.0
    )
    assert difference(sampled(unseen, "euler"), core) > 1e-2


def test_windows_of_tsr_do_not_see_each_other(attending: Any) -> None:
    one, two = (interpolated(attending, chunk=chunk) for chunk in (1, 2))
    assert_close(one, two, rtol=1e-4, atol=1e-4 * float(one.std()))
    inner = attending.tsr.model.model.diffusion_model
    layers = [m for m in inner.modules() if type(m).__name__ == "AppearanceAttention"]
    assert len(layers) == 3
    with torch.no_grad():
        for layer in layers:
            layer.to_out.weight.zero_()
    assert not torch.equal(interpolated(attending, chunk=1), one)
