"""The noise schedule that ends in pure noise."""

from __future__ import annotations

import pytest
import torch

from microcinema_core.diffusion.schedule import NoiseSchedule, alphas_cumprod, zero_terminal
from microcinema_core.files.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from microcinema_core.model_spec import ModelSpec
from mini.stages.image import MINI


def test_zero_terminal_keeps_the_first_step_and_ends_without_signal() -> None:
    plain, zero = alphas_cumprod(), zero_terminal(alphas_cumprod())
    assert zero[0] == pytest.approx(float(plain[0]))
    assert float(zero[-1]) < 1e-7 < float(plain[-1])
    assert (zero.diff() < 0).all()


def test_timesteps_and_sigmas_still_invert_each_other() -> None:
    schedule = NoiseSchedule.from_spec(ModelSpec("unet", prediction="v", zero_terminal_snr=True))
    t = torch.tensor([0, 1, 250, 500, 998, 999])
    torch.testing.assert_close(schedule.timestep(schedule.sigmas[t]), t.float(), rtol=0, atol=2e-2)
    assert schedule.sampling_sigmas(20).isfinite().all()


@pytest.mark.parametrize("timesteps", [[999], [999, 0], [999, 500, 0], [999, 666, 333, 0]])
def test_steps_are_even_from_the_most_noise_to_the_least(timesteps: list[int]) -> None:
    schedule = NoiseSchedule()
    expected = torch.cat([schedule.sigmas[timesteps], torch.zeros(1)])
    assert schedule.sampling_sigmas(len(timesteps)).equal(expected)


def test_a_file_says_how_its_schedule_ends(tmp_path) -> None:  # type: ignore[no-untyped-def]
    def write(prediction: str, zero_terminal_snr: bool = False):  # type: ignore[no-untyped-def]
        parts, configs = {"unet": {"a": torch.zeros(1)}}, {"unet": MINI}
        spec = ModelSpec("unet", 0, 2, 9, prediction, zero_terminal_snr=zero_terminal_snr)  # type: ignore[arg-type]
        return write_checkpoint(tmp_path / "m.safetensors", parts, spec=spec, configs=configs)

    def terminal(checkpoint: Checkpoint) -> str:
        assert checkpoint.spec.zero_terminal_snr == (checkpoint.metadata["microcinema.terminal"] == "zero")
        return checkpoint.metadata["microcinema.terminal"]

    assert terminal(read_checkpoint(write("v"))) == "sd"
    assert terminal(read_checkpoint(write("v", zero_terminal_snr=True))) == "zero"
    with pytest.raises(ValueError, match="zero terminal SNR was given with prediction 'eps', but needs 'v'"):
        write("eps", zero_terminal_snr=True)
