"""Stages base and tsr at tiny size: Eq. 5 with Eq. 3, the paper's two learning rates, and files that can be loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from devtools.check.tiny import ATTENDING, write_family
from microcinema_core.diffusion.schedule import Prediction, training_target
from microcinema_core.files.checkpoint import read_checkpoint, write_checkpoint
from microcinema_core.model_spec import SamplerDefaults
from microcinema_core.train import loop
from microcinema_core.train import video as clips
from microcinema_core.train.batches import draw_latents
from microcinema_core.train.compare_to_baseline import compare
from microcinema_core.train.config import parse
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.stages import build_stage
from microcinema_core.train.trainer import build
from microcinema_core.train.video import VideoStage
from tests.train.clip_world import CLIPS, table, write_clips, write_home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    write_home(tmp_path)
    return tmp_path


def stage_of(name: str) -> VideoStage:
    stage = build_stage(parse(table(name)))
    stage.prepare()
    assert isinstance(stage, VideoStage)
    return stage


def draws() -> SharedRandom:
    return SharedRandom(torch.Generator().manual_seed(5))


def test_two_learning_rates_by_name() -> None:
    trainer = build(parse(table("base")), stage_of("base"))
    group = {name: trainer.stage.group_of(name) for name in trainer.master_weights.names}
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


@pytest.mark.parametrize("start", ["image", "base"])
def test_appearance_attention_is_added_trained_and_kept(home: Path, start: str) -> None:
    write_family(home / "deep", unet=replace(ATTENDING, appearance_attention=False), dtype=torch.float32)
    plain = {"image_file": "deep/tiny_image.safetensors", "hidden": 16}
    begun = {"init_from": f"deep/tiny_{start}.safetensors"}
    without, stage = (
        build_stage(parse(table("base", model=plain | extra, **begun)))
        for extra in ({}, {"appearance_attention": True})
    )
    without.prepare()
    stage.prepare()
    batch = {key: torch.stack([stage.dataset[i][key] for i in range(4)]) for key in ("mean", "tokens")}
    losses = [one.loss(batch, draws())[0].item() for one in (without, stage)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6), "new layers add nothing yet"

    trainer = build(parse(table("base", model=plain | {"appearance_attention": True}, **begun)), stage)
    names = [name for name in trainer.master_weights.names if ".appearance_attention." in name]
    assert {stage.group_of(name) for name in names} == {"temporal"}
    stage.groups = {"appearance_attention": 8.0}
    assert {stage.group_of(name) for name in names} == {"appearance_attention"}
    loop.train_step(trainer)
    stage.export(home / "base.safetensors", {part: net.state_dict() for part, net in stage.modules.items()})
    read = read_checkpoint(home / "base.safetensors")
    assert read.config("unet").appearance_attention and read.config("appearnet").unet.appearance_attention
    out = read.part("unet")["input_blocks.1.1.appearance_attention.to_out.weight"]
    assert out.abs().max() > 0

    for name in ("base", "tsr"):
        kept = build_stage(parse(table(name, model=plain, init_from="base.safetensors")))
        kept.prepare()
        assert torch.equal(
            kept.video.unet.state_dict()["input_blocks.1.1.appearance_attention.to_out.weight"], out
        )
        loss, _ = kept.loss(
            {key: torch.stack([kept.dataset[i][key] for i in range(4)]) for key in ("mean", "tokens")},
            draws(),
        )
        loss.backward()
        assert kept.video.unet.input_blocks[1][1].appearance_attention.motion.weight.grad.abs().max() > 0
    with pytest.raises(
        ValueError, match=r"model\.appearance_attention is False, but the file that init_from names has True"
    ):
        build_stage(
            parse(table("base", model=plain | {"appearance_attention": False}, init_from="base.safetensors"))
        )


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("name", ["base", "tsr"])
def test_the_target_is_the_whole_noise_of_eq_3(
    name: str, prediction: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exact prediction, lambda z_c + eps_n, has no loss; without lambda z_c, the loss is that term's."""
    stage = stage_of(name)
    video = stage.video
    video.spec = replace(video.spec, prediction=prediction)
    seen: dict[str, Tensor] = {}

    def cheat(z_t: Tensor, t: Tensor, context: Tensor, kept: Tensor) -> Tensor:
        alpha_bar = stage.alpha_bar[t.long()][:, None, None, None, None]
        eps = (z_t - alpha_bar.sqrt() * seen["z_0"]) / (1 - alpha_bar).sqrt()
        prior = stage.video.spec.lambda_ * kept[:, None, None, None, None] * seen["z_c"]
        return training_target(seen["z_0"], eps - seen["forget"] * prior, alpha_bar, prediction)

    batch = {"mean": torch.stack([stage.dataset[i]["mean"] for i in range(4)])}
    batch["tokens"] = torch.stack([stage.dataset[i]["tokens"] for i in range(4)])
    seen["z_0"] = batch["mean"]
    seen["z_c"] = stage.appearance(batch["mean"]).unflatten(0, (4, -1))
    monkeypatch.setattr(video, "injection", lambda appearance, t, context, kept, vision: kept)
    monkeypatch.setattr(video, "predict", cheat)
    for forget in (0.0, 1.0):
        seen["forget"] = torch.tensor(forget)
        loss, _ = stage.loss(batch, SharedRandom(torch.Generator().manual_seed(5)))
        if prediction == "v" and forget:
            assert loss > 1e-5  # its size depends on the timesteps drawn
            continue
        prior = (stage.video.spec.lambda_ * seen["z_c"].expand_as(batch["mean"])).square().mean() * forget
        assert loss == pytest.approx(float(prior), rel=0.35, abs=1e-5)


@pytest.mark.parametrize("name", ["base", "tsr"])
def test_residuals_are_trained_on_and_the_file_says_so(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = build_stage(parse(table(name, model=table(name)["model"] | {"residual": 0.5})))
    assert isinstance(stage, VideoStage)
    stage.prepare()
    video = stage.video
    batch = {key: torch.stack([stage.dataset[i][key] for i in range(4)]) for key in ("mean", "tokens")}
    z_c = stage.appearance(batch["mean"]).unflatten(0, (4, -1))
    residuals = (batch["mean"] - z_c) / 0.5

    def cheat(z_t: Tensor, t: Tensor, context: Tensor, kept: Tensor) -> Tensor:
        alpha_bar = stage.alpha_bar[t.long()][:, None, None, None, None]
        eps = (z_t - alpha_bar.sqrt() * residuals) / (1 - alpha_bar).sqrt()
        return training_target(residuals, eps, alpha_bar, video.spec.prediction)

    monkeypatch.setattr(video, "injection", lambda appearance, t, context, kept, vision: kept)
    monkeypatch.setattr(video, "predict", cheat)
    loss, _ = stage.loss(batch, draws())
    assert residuals.abs().max() > 0.1 and loss < 1e-6
    stage.export(
        home / "residual.safetensors", {n: module.state_dict() for n, module in stage.modules.items()}
    )
    assert read_checkpoint(home / "residual.safetensors").spec.residual == 0.5
    for given, meant in (({}, 0.5), ({"residual": 0.0}, 0.0)):
        config = table(name, init_from="residual.safetensors", model=table(name)["model"] | given)
        gone_on = build_stage(parse(config))
        assert isinstance(gone_on, VideoStage) and gone_on.video.spec.residual == meant
    monkeypatch.setattr(video, "predict", lambda z_t, *_: torch.zeros_like(z_t))
    video.spec = replace(video.spec, prediction="v")
    made = video.denoiser(z_c.flatten(0, 1), stage.empty_context.expand(4, -1, -1), z_c, 1.0)(
        z_c + 0.01, torch.tensor(1e-3)
    )
    torch.testing.assert_close(made, (z_c + 0.01).expand_as(made), rtol=1e-3, atol=1e-3)


def test_dropped_appearance_is_the_unet_alone() -> None:
    stage = stage_of("base")
    video = stage.video
    with torch.no_grad():
        for parameter in video.appearnet.parameters():
            parameter.add_(0.05)
    z = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    context = stage.empty_context.expand(2, -1, -1)
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


@pytest.mark.parametrize("dropped", [0.0, 1.0])
def test_appearance_and_its_prior_are_dropped_together(
    dropped: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of("base")
    stage.objective = replace(stage.objective, appearance_dropout=dropped)
    seen: list[Tensor] = []
    video = stage.video
    monkeypatch.setattr(clips, "training_noise", lambda eps, z_c, lambda_: seen.append(lambda_) or eps)
    monkeypatch.setattr(video, "injection", lambda appearance, t, context, kept, vision: seen.append(kept))
    monkeypatch.setattr(video, "predict", lambda z_t, *_: z_t)
    items = [stage.dataset[i] for i in range(4)]
    stage.loss({name: torch.stack([item[name] for item in items]) for name in ("mean", "tokens")}, draws())
    lambda_, kept = seen
    assert kept.tolist() == [1 - dropped] * 4 and (lambda_ == stage.video.spec.lambda_ * (1 - dropped)).all()


def test_noise_offset_is_one_value_a_clip_and_channel() -> None:
    stage, z_0 = stage_of("base"), torch.zeros(4, 3, 8, 8, 8)
    plain = stage.noise(z_0, draws())
    stage.objective = replace(stage.objective, noise_offset=0.5)
    offset = stage.noise(z_0, draws()) - plain
    assert offset.std() == pytest.approx(0.5, rel=0.5)
    torch.testing.assert_close(offset, offset[:, :1, :, :1, :1].expand_as(offset), atol=1e-6, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_timesteps_comes_from_the_end(share: float) -> None:
    stage = stage_of("base")
    stage.objective = replace(stage.objective, final_share=share)
    steps = len(stage.alpha_bar)
    drawn = stage.timesteps(4000, draws())
    assert drawn.min() >= 0 and drawn.max() < steps
    at_the_end = (drawn >= steps - steps // 20).float().mean()
    assert at_the_end == pytest.approx(share + (1 - share) / 20, abs=0.03)


def test_latents_are_drawn_anew_where_their_deviation_is_known() -> None:
    mean, std = torch.ones(2, 3, 4, 8, 8), torch.full((2, 3, 4, 8, 8), 0.1)
    assert torch.equal(draw_latents({"mean": mean}, draws()), mean)
    drawn = (draw_latents({"mean": mean, "std": std}, draws()) - mean) / std
    assert drawn.std() == pytest.approx(1, abs=0.05) and abs(drawn.mean()) < 0.1


def test_base_then_tsr_to_files(home: Path) -> None:
    loop.run(parse(table("base")))
    base = read_checkpoint(home / "runs/my_base/my_base.safetensors", expect_roles=("base",))
    assert (base.spec.lambda_, base.spec.fps, base.spec.frames, base.spec.prediction) == (0.03, 2.0, 3, "eps")
    assert base.parts["appearnet"]["empty_prompt"].any()
    rows = [json.loads(line) for line in (home / "runs/my_base/stats.jsonl").read_text().splitlines()]
    assert any(name.startswith("loss/band") for name in rows[0]), "loss by timestep band"
    loop.run(parse(table("tsr", init_from="runs/my_base/my_base.safetensors")))
    tsr = read_checkpoint(home / "runs/my_tsr/my_tsr.safetensors", expect_roles=("tsr",))
    assert (tsr.spec.fps, tsr.spec.frames) == (8.0, 5)
    assert set(tsr.parts["unet"]) == set(base.parts["unet"])


def test_sheets_show_real_and_sampled_clips() -> None:
    stage = stage_of("base")
    with torch.no_grad():
        sheet = stage.sheet()
    assert sheet.picture.shape == (3, 2 * CLIPS * (64 + 4), 3 * (64 + 4))
    with torch.no_grad():
        assert torch.equal(stage.sheet().picture, sheet.picture), "the same seed each time"
    assert sheet.frames is not None and sheet.frames.shape == (3, 3, 2 * CLIPS // 4 * (64 + 4), 4 * (64 + 4))


def test_figures_know_a_perfect_and_a_still_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of("base")
    monkeypatch.setattr(stage, "sample", lambda z, *_, **__: z)
    figures, pictures = compare(stage, 4, steps=1, guidance_scale=1.0, seed=0)
    assert figures["motion_over_real_median"] == 1 and figures["motion_over_real_baseline"] == 0
    assert figures["psnr_to_real_frames"] > 60 > figures["psnr_to_real_frames_baseline"]
    assert pictures.shape == (4, 2, 3, 3, 64, 64)


@pytest.mark.parametrize("name", ["base", "tsr"])
def test_a_concat_base_model_is_trained_on_and_made_tsr(name: str, home: Path) -> None:
    """Its AppearNet is one convolution without an encoder; the [model] table need not repeat the injection."""
    first = build_stage(parse(table("base", model=table("base")["model"] | {"injection": "concat"})))
    first.prepare()
    first.export(home / "concat.safetensors", {part: net.state_dict() for part, net in first.modules.items()})
    stage = build_stage(parse(table(name, init_from="concat.safetensors")))
    stage.prepare()
    assert isinstance(stage, VideoStage) and stage.video.appearnet.config.injection == "concat"
    batch = {key: torch.stack([stage.dataset[i][key] for i in range(4)]) for key in ("mean", "tokens")}
    loss, _ = stage.loss(batch, draws())
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("key", "value", "there"),
    [("hidden", 17, "16"), ("injected_norm", "clip", "'frame'"), ("injection", "add_dec", "'spade'")],
)
def test_a_key_that_the_start_file_contradicts_is_told(key: str, value: object, there: str) -> None:
    settings = table("tsr", model={**table("tsr")["model"], key: value})
    with pytest.raises(
        ValueError, match=rf"model\.{key} is {value!r}, but the file that init_from names has {there}:"
    ):
        build_stage(parse(settings))


def test_clips_of_another_checkpoint_are_told(home: Path) -> None:
    write_clips(home / "data" / "channels", 3, [2.0], channels=4)
    write_clips(home / "data" / "width", 3, [2.0], contexts=48)
    for name, words in (
        ("channels", r"\(3, 4, 8, 8\) and captions of width 32"),
        ("width", "captions of width 48"),
    ):
        for keys in ({"folder": name}, {"folder": "base", "test_folder": name}):
            with pytest.raises(
                ValueError, match=rf"data/{name} have latents of shape .*{words}; the networks take 8"
            ):
                build_stage(parse(table("base", data={**keys, "batch": 2})))


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{", "index.json is damaged"),
        ("[]", "index.json is damaged"),
        ('{"shards": "x"}', "index.json is damaged"),
        ('{"shards": [-1]}', "index.json is damaged"),
        ('{"shards": [6], "files": [1]}', "index.json is damaged"),
        ("[" * 100_000, "index.json is damaged"),
        ('{"shards": [], "frames": 3, "fps": [2.0]}', "is empty; prepare the data first"),
        ('{"shards": [6], "frames": 3}', "has frames 3 and fps None; expected"),
        ('{"shards": [6], "frames": 3, "fps": [NaN]}', r"has frames 3 and fps \[nan\]; expected"),
        ('{"shards": [6], "frames": "x", "fps": [2.0]}', "has frames 'x' and fps"),
        ('{"shards": [9], "frames": 3, "fps": [2.0], "empty_tokens": [1]}', "lacks|cannot be read|latents"),
        ('{"shards": [6], "frames": 3, "fps": [2.0]}', "lacks `empty_tokens`"),
    ],
)
def test_a_damaged_index_is_one_sentence(home: Path, index: str, words: str) -> None:
    (home / "data" / "base" / "index.json").write_text(index)
    if "[9]" in index:
        (home / "data" / "base" / "00000.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=words):
        build_stage(parse(table("base")))


@pytest.mark.parametrize("norm", ["frame", "clip"])
def test_tsr_keeps_the_base_models_norm(home: Path, norm: str) -> None:
    model = {**table("base")["model"], "injected_norm": norm}
    loop.run(parse(table("base", model=model)))
    start = "runs/my_base/my_base.safetensors"
    stage = build_stage(parse(table("tsr", init_from=start, model=model)))
    assert isinstance(stage, VideoStage) and stage.video.unet.config.injected_norm == norm


def test_the_file_recommends_what_the_config_says(home: Path) -> None:
    """What is left out is that of the file that training continues; of one that it merely starts from, none of it."""
    given = {"steps": 3, "cfg": 1.5, "sampler": "ddim", "scheduler": "karras", "gamma": 0.1}
    loop.run(parse(table("base", sampling=given)))
    trained = home / "runs/my_base/my_base.safetensors"
    assert read_checkpoint(trained).spec.sampling == SamplerDefaults(3, 1.5, "ddim", "karras", 0.1)

    def of(stage: str, start: Path | str, **more: Any) -> SamplerDefaults:
        made = build_stage(parse({**table(stage, **more), "init_from": str(start), "name": "next"}))
        assert isinstance(made, VideoStage)
        return made.video.spec.sampling

    assert of("base", trained) == SamplerDefaults(3, 1.5, "ddim", "karras", 0.1)
    assert of("base", trained, sampling={"steps": 9}) == SamplerDefaults(9, 1.5, "ddim", "karras", 0.1)
    assert of("tsr", trained) == SamplerDefaults()
    image = read_checkpoint(home / "files/tiny_image.safetensors")
    write_checkpoint(
        home / "image.safetensors", image.parts, configs=image.configs,
        spec=replace(image.spec, sampling=SamplerDefaults(steps=9)),
    )  # fmt: skip
    assert of("base", home / "image.safetensors") == SamplerDefaults()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, r"sampling.steps is 0; expected a whole number from 1"),
        ({"cfg": float("nan")}, r"sampling.cfg is nan; expected a finite number"),
        ({"stepz": 3}, r"\[sampling\] has no key 'stepz'; did you mean 'steps'"),
        (3, r"\[sampling\] is 3; a table was expected"),
    ],
)
def test_recommendations_that_cannot_be(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(table("base", sampling=given))
