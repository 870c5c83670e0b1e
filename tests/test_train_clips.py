"""Stages base and tsr at tiny size: eq. 5 with eq. 3, the paper's two rates by name, and files that others can read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from microcinema_core.checkpoint import read_checkpoint
from microcinema_core.schedule import Prediction, training_target
from microcinema_core.train import loop
from microcinema_core.train.config import parse
from microcinema_core.train.draws import Draws
from microcinema_core.train.show import compare
from microcinema_core.train.stage import build_stage
from microcinema_core.train.stages.clips import ClipStage
from microcinema_core.train.trainer import build
from tests.clip_world import CLIPS, table, write_home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    write_home(tmp_path)
    return tmp_path


def stage_of(name: str) -> ClipStage:
    stage = build_stage(parse(table(name)))
    stage.prepare()
    assert isinstance(stage, ClipStage)
    return stage


def test_two_learning_rates_by_name() -> None:
    trainer = build(parse(table("base")), stage_of("base"))
    group = {name: trainer.stage.group_of(name) for name in trainer.masters.names}
    assert group["unet.input_blocks.1.0.in_layers.2.weight"] == "spatial"
    assert group["unet.input_blocks.1.0.in_temporal.conv.weight"] == "temporal"
    assert group["unet.middle_block.1.temporal.attn.to_q.weight"] == "temporal"
    assert group["appearnet.encoder.input_blocks.1.0.in_layers.2.weight"] == "injection"
    assert group["appearnet.spade.output_blocks_0_0_out.out.weight"] == "injection"
    assert not any("temporal.attn.to_q" in name for name in group if name.startswith("appearnet."))
    loop.train_step(trainer)
    rates = {name: g["lr"] for name, g in zip(trainer.groups, trainer.optimizer.param_groups, strict=True)}
    assert (
        rates["spatial"] == pytest.approx(rates["temporal"] / 10) and rates["injection"] == rates["temporal"]
    )


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("name", ["base", "tsr"])
def test_the_target_is_the_whole_noise_of_eq_3(
    name: str, prediction: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exact answer, lambda z_c + eps_n, has no loss; one that forgets lambda z_c has just that."""
    stage = stage_of(name)
    video = stage.networks.video
    video.prediction = prediction
    seen: dict[str, Tensor] = {}

    def cheat(z_t: Tensor, t: Tensor, context: Tensor, kept: Tensor) -> Tensor:
        alpha_bar = stage.alpha_bar[t.long()][:, None, None, None, None]
        eps = (z_t - alpha_bar.sqrt() * seen["z_0"]) / (1 - alpha_bar).sqrt()
        prior = stage.model.lambda_ * kept[:, None, None, None, None] * seen["z_c"]
        return training_target(seen["z_0"], eps - seen["forget"] * prior, alpha_bar, prediction)

    batch = {"mean": torch.stack([stage.dataset[i]["mean"] for i in range(4)])}
    batch["tokens"] = torch.stack([stage.dataset[i]["tokens"] for i in range(4)])
    seen["z_0"] = batch["mean"]
    seen["z_c"] = stage.role.appearance(batch["mean"]).unflatten(0, (4, -1))
    monkeypatch.setattr(video, "injection", lambda appearance, t, context, kept: kept)
    monkeypatch.setattr(video, "predict", cheat)
    for forget in (0.0, 1.0):
        seen["forget"] = torch.tensor(forget)
        loss, _ = stage.loss(batch, Draws(torch.Generator().manual_seed(5)))
        if prediction == "v" and forget:
            assert loss > 1e-5  # its size depends on the timesteps drawn
            continue
        prior = (stage.model.lambda_ * seen["z_c"].expand_as(batch["mean"])).square().mean() * forget
        assert loss == pytest.approx(float(prior), rel=0.35, abs=1e-5)


def test_dropped_appearance_is_the_unet_alone() -> None:
    stage = stage_of("base")
    video = stage.networks.video
    with torch.no_grad():
        for parameter in video.appearnet.parameters():
            parameter.add_(0.05)
    z = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    context = stage.empty.expand(2, -1, -1)
    t = torch.tensor([10.0, 500.0])
    with torch.no_grad():
        injection = video.injection(z[:, 1], t, context, torch.tensor([0.0, 1.0]))
        answer = video.predict(z, t, context, injection)
        rows = z.flatten(0, 1)
        alone = video.unet(rows, t.repeat_interleave(3), context.repeat_interleave(3, 0), frames=3).unflatten(
            0, (2, 3)
        )
    torch.testing.assert_close(answer[0], alone[0], rtol=1e-4, atol=1e-5)
    assert (answer[1] - alone[1]).abs().max() > 1e-3


def test_base_then_tsr_to_files(home: Path) -> None:
    loop.run(parse(table("base")))
    base = read_checkpoint(home / "runs/my_base/my_base.safetensors", expect_roles=("base",))
    assert (base.lambda_, base.fps, base.frames, base.prediction) == (0.03, 2.0, 3, "eps")
    assert base.parts["appearnet"]["empty_prompt"].any()
    loop.run(parse(table("tsr", init_from="runs/my_base/my_base.safetensors")))
    tsr = read_checkpoint(home / "runs/my_tsr/my_tsr.safetensors", expect_roles=("tsr",))
    assert (tsr.fps, tsr.frames) == (8.0, 5)
    assert set(tsr.parts["unet"]) == set(base.parts["unet"])


def test_sheets_show_real_and_sampled_clips() -> None:
    stage = stage_of("base")
    with torch.no_grad():
        sheet = stage.sheet()
    assert sheet.picture.shape == (3, 2 * CLIPS * (64 + 4), 3 * (64 + 4))
    assert sheet.frames is not None and sheet.frames.shape == (3, 3, 2 * CLIPS // 4 * (64 + 4), 4 * (64 + 4))


def test_figures_know_a_perfect_and_a_still_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of("base")
    monkeypatch.setattr(stage, "sample", lambda z, *_, **__: z)
    figures, pictures = compare(stage, 4, steps=1, guidance_scale=1.0, seed=0)
    assert figures["motion_over_real_median"] == 1 and figures["motion_over_real_baseline"] == 0
    assert figures["psnr_to_real_frames"] > 60 > figures["psnr_to_real_frames_baseline"]
    assert pictures.shape == (4, 2, 3, 3, 64, 64)
