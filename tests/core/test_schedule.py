"""The noise schedule that ends in pure noise."""

from __future__ import annotations

import pytest
import torch

from microcinema_core.config import MINI
from microcinema_core.diffusion.schedule import NoiseSchedule, alphas_cumprod, zero_terminal
from microcinema_core.files.checkpoint import read_checkpoint, write_checkpoint


def test_zero_terminal_keeps_the_first_step_and_ends_without_signal() -> None:
    plain, zero = alphas_cumprod(), zero_terminal(alphas_cumprod())
    assert zero[0] == pytest.approx(float(plain[0]))
    assert float(zero[-1]) < 1e-7 < float(plain[-1])
    assert (zero.diff() < 0).all()


def test_timesteps_and_sigmas_still_invert_each_other() -> None:
    schedule = NoiseSchedule.ending("zero")
    t = torch.tensor([0, 1, 250, 500, 998, 999])
    torch.testing.assert_close(schedule.timestep(schedule.sigmas[t]), t.float(), rtol=0, atol=2e-2)
    assert schedule.sampling_sigmas(20).isfinite().all()


@pytest.mark.parametrize("timesteps", [[999], [999, 0], [999, 500, 0], [999, 666, 333, 0]])
def test_steps_are_even_from_the_most_noise_to_the_least(timesteps: list[int]) -> None:
    schedule = NoiseSchedule()
    expected = torch.cat([schedule.sigmas[timesteps], torch.zeros(1)])
    assert schedule.sampling_sigmas(len(timesteps)).equal(expected)


def test_a_file_says_how_its_schedule_ends(tmp_path) -> None:  # type: ignore[no-untyped-def]
    def write(**said: str):  # type: ignore[no-untyped-def]
        parts, configs = {"unet": {"a": torch.zeros(1)}}, {"unet": MINI}
        return write_checkpoint(
            tmp_path / "m.safetensors",
            parts,
            role="unet",
            configs=configs,
            lambda_=0,
            fps=2,
            frames=9,
            **said,
        )

    assert read_checkpoint(write(prediction="v")).terminal == "sd"
    assert read_checkpoint(write(prediction="v", terminal="zero")).terminal == "zero"
    with pytest.raises(ValueError, match="zero with v"):
        write(prediction="eps", terminal="zero")
