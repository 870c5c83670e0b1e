"""A full sampling run in the host equals that of the core without a host.

This test fails if a version of the host changes the results of its samplers, noise or attention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from devtools.check import goldens, tiny
from microcinema_core.diffusion.schedule import NoiseSchedule


def difference(value: Tensor, golden: Tensor) -> float:
    return float((value - golden).norm() / golden.norm())


@pytest.fixture(params=goldens.INJECTIONS)
def case(comfy_in_process: Path, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    """Return the MODEL with its centre frame, and the golden clip."""
    from microcinema_core import adapter

    tiny.write_family(tmp_path, injection=request.param, dtype=torch.float32)
    base = adapter.load_checkpoint(tmp_path / "tiny_base.safetensors")
    centre = {"samples": goldens.inputs()["centre"]}
    model = adapter.apply_appearance(base.model, base.appearnet, centre, gamma=goldens.GAMMA)
    return model, load_file(goldens.FILE)[request.param]


def sampled(model: Any, sampler: str) -> Tensor:
    """SamplerCustomAdvanced on the core's own noise levels and noise."""
    from comfy_extras import nodes_custom_sampler as custom

    given = goldens.inputs()
    with torch.inference_mode():
        guider = custom.CFGGuider.execute(
            model, [[given["positive"], {}]], [[given["negative"], {}]], goldens.CFG
        ).args[0]
        return custom.SamplerCustomAdvanced.execute(
            custom.RandomNoise.execute(goldens.SEED).args[0],
            guider,
            custom.KSamplerSelect.execute(sampler).args[0],
            NoiseSchedule().sampling_sigmas(goldens.STEPS),
            {"samples": torch.zeros(goldens.FRAMES, 8, 8, 8)},
        ).args[0]["samples"]


@pytest.mark.parametrize("sampler", ["euler", "ddim"])
def test_the_host_samples_the_cores_goldens(case: tuple[Any, Tensor], sampler: str) -> None:
    model, golden = case
    assert difference(sampled(model, sampler), golden) < 1e-3


def test_the_hosts_own_schedule_is_ours(case: tuple[Any, Tensor]) -> None:
    """KSampler's `normal` spaces its steps by the same rule; four of them fall on whole timesteps."""
    import nodes

    model, golden = case
    given = goldens.inputs()
    with torch.inference_mode():
        clip = nodes.KSampler().sample(
            model,
            goldens.SEED,
            goldens.STEPS,
            goldens.CFG,
            "euler",
            "normal",
            [[given["positive"], {}]],
            [[given["negative"], {}]],
            {"samples": torch.zeros(goldens.FRAMES, 8, 8, 8)},
        )[0]["samples"]
    assert difference(clip, golden) < 1e-3


@pytest.mark.parametrize("steps", [2, 3, 20, 33])
def test_steps_are_those_of_the_hosts_normal(case: tuple[Any, Tensor], steps: int) -> None:
    import comfy.samplers

    host = case[0].get_model_object("model_sampling")
    theirs = comfy.samplers.calculate_sigmas(host, "normal", steps)
    schedule = NoiseSchedule()
    t, host_t = (schedule.timestep(sigmas[:-1]) for sigmas in (schedule.sampling_sigmas(steps), theirs))
    assert (t - host_t).abs().max() < 0.51, "ours are whole timesteps"
