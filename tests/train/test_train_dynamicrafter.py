"""DynamiCrafter trained further in its own way: latents beside the noise, and tokens of CLIP vision's features."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from devtools.check.crafter_files import CLIP_WIDTH, UNET, write_crafter
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.crafter import read_crafter
from microcinema_core.files.load_networks import load_video_model
from microcinema_core.train import compare_to_baseline, loop
from microcinema_core.train.config import parse
from microcinema_core.train.plan import describe
from microcinema_core.train.step import train_step
from microcinema_core.train.trainer import build
from tests.core.test_crafter import diffusers, oracle
from tests.train.clip_world import to_toml, write_clips
from tests.train.test_train_warm_video_models import watched
from tests.train.warm_world import CONTEXT, FRAMES, RATE, config, in_warm_home, prepared, write_video_models

FILE, POSITIONS = "dynamicrafter_512.safetensors", 5
assert diffusers


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_warm_home(tmp_path, monkeypatch)
    write_video_models(tmp_path)
    write_clips(
        tmp_path / "data" / "seen", FRAMES, [2.0], channels=4, contexts=CONTEXT, side=(16, 8),
        vision=(POSITIONS, CLIP_WIDTH),
    )  # fmt: skip
    return tmp_path


def own_way(folder: str = "seen", **changes: Any) -> dict[str, Any]:
    given = {"init_from": "sd2.safetensors", "data": {"folder": folder, "batch": 4}, **changes}
    model = {"injection": "concat", **given.pop("model", {})}
    return config(FILE, model=model, **given)


def test_nothing_of_the_file_is_left_out(home: Path) -> None:
    stage, read = prepared(own_way()), read_crafter(home / FILE)
    assert read.appearnet is not None
    for made, published in (
        (stage.video.unet.state_dict(), read.unet),
        (stage.video.appearnet.state_dict(), read.appearnet),
    ):
        assert set(made) - set(published) <= {"grey"} and set(published) <= set(made)
        assert all(torch.equal(made[key], value) for key, value in published.items())
    grey = load_file(home / "data/seen/empty.safetensors")["grey"].float()
    assert torch.equal(stage.video.grey, grey) and grey.any()
    groups = {stage.group_of(f"appearnet.{name}") for name, _ in stage.video.appearnet.named_parameters()}
    assert groups == {"injection"}


def test_one_step_is_a_literal_step_of_diffusers_network(home: Path) -> None:
    """A clip whose text is dropped sees mid grey, as the unguided branch does; v for Eq. 3's noise; AdamW."""
    given = own_way(loss={"text_dropout": 0.5, "appearance_dropout": 0.0}, seed=5)
    stage = prepared(given)
    trainer = build(parse(given), stage)
    read = read_crafter(home / FILE)
    before = {key: value.clone() for key, value in stage.video.appearnet.state_dict().items()}
    resampler = deepcopy(stage.video.appearnet.resampler).requires_grad_(True)
    drawn, seen = watched(stage), {}
    batch = trainer.batches.next

    def kept() -> dict[str, Tensor]:
        seen.update(batch())
        return dict(seen)

    trainer.batches.next = kept  # type: ignore[method-assign]
    ours = train_step(trainer)["loss"]

    dropped = (drawn["context"] == stage.empty_context).flatten(1).all(dim=1)
    assert 0 < int(dropped.sum()) < 4, "both kinds of clips are in the batch"
    features = torch.stack(
        [stage.video.grey if gone else one.float() for gone, one in zip(dropped, seen["vision"], strict=True)]
    )
    theirs = oracle(read, resampler(features).repeat_interleave(FRAMES, 0), context=CONTEXT)
    theirs.requires_grad_(True)

    ab = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    root = ab.sqrt()
    ab = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    scales = torch.cat([torch.linspace(1, 0.7, 400), torch.full((600,), 0.7)])
    t = drawn["t"].long()
    a, b = (x[t].float().view(-1, 1, 1, 1, 1) for x in (ab.sqrt(), (1 - ab).sqrt()))
    z_c = drawn["z_0"][:, FRAMES // 2].unsqueeze(1).expand_as(drawn["z_0"])
    eps = drawn["eps_n"] + 0.03 * z_c
    scaled = drawn["z_0"] * scales[t].view(-1, 1, 1, 1, 1)
    video = rearrange(torch.cat([a * scaled + b * eps, z_c], dim=2), "b f c h w -> b c f h w")
    made = rearrange(theirs(video, drawn["t"], drawn["context"]).sample, "b c f h w -> b f c h w")
    loss = (made - (a * eps - b * scaled)).square().mean()
    assert_close(torch.as_tensor(float(ours)), loss.detach(), rtol=1e-4, atol=1e-5)

    own = {f"resampler.{name}": value for name, value in resampler.named_parameters()}
    own["concat.weight"] = theirs.conv_in.weight
    start = {name: value.detach().clone() for name, value in own.items()}
    optimizer = torch.optim.AdamW(own.values(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    loss.backward()
    optimizer.step()
    after, agreeing, counted = stage.video.appearnet.state_dict(), 0, 0
    for name, value in own.items():
        literal = value.detach() - start[name]
        literal = literal[:, 4:] if name == "concat.weight" else literal
        change = after[name] - before[name]
        # AdamW's first step is the sign of the gradient: where that is rounding, so is the sign.
        agreeing += int(((change - literal).abs() < 0.1 * RATE).sum())
        counted += change.numel()
    assert counted > 40_000 and agreeing / counted > 0.99


def test_without_appearance_the_u_net_is_alone() -> None:
    stage = prepared(own_way())
    generator = torch.Generator().manual_seed(1)
    z, context = (
        torch.randn(2, FRAMES, 4, 8, 8, generator=generator),
        torch.randn(2, 7, CONTEXT, generator=generator),
    )
    vision = torch.randn(2, POSITIONS, CLIP_WIDTH, generator=generator)
    t = torch.tensor([10.0, 900.0])
    with torch.no_grad():
        injection = stage.video.injection(z[:, 1], t, context, torch.tensor([0.0, 1.0]), vision)
        made = stage.video.predict(z, t, context, injection)
        alone = stage.video.predict(z, t, context, stage.video.injection(z[:, 1], t, context, 0.0, vision))
        shown = stage.video.predict(z, t, context, stage.video.injection(z[:, 1], t, context, 1.0, vision))
    assert_close(made[0], alone[0], rtol=1e-4, atol=1e-4)
    assert_close(made[1], shown[1], rtol=1e-4, atol=1e-4)
    assert (shown[0] - alone[0]).abs().max() > 1e-2


def test_the_trained_file_brings_mid_grey_along(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop.run(parse(own_way()))
    path = home / "runs/my_base/my_base.safetensors"
    file = read_checkpoint(path, expect_roles=("base",))
    config_of_it = file.config("appearnet")
    assert config_of_it.resampler.grey == POSITIONS and config_of_it.injection == "concat"
    grey = load_file(home / "data/seen/empty.safetensors")["grey"]
    assert torch.equal(file.part("appearnet")["grey"], grey)
    assert file.spec.lambda_ == 0.03 and file.config("unet").image_context == UNET.image_context
    (source,) = json.loads(file.metadata["microcinema.sources"])
    assert source["gives"] == ["spatial", "temporal", "injection"] and source["kind"] == "DynamiCrafter 512"

    again = prepared({**own_way(), "init_from": str(path), "model": {}})
    assert torch.equal(again.video.grey, grey.float())
    toml = home / "again.toml"
    toml.write_text(to_toml({**own_way(), "model": {"image_file": "sd2.safetensors"}}))
    assert compare_to_baseline.main([str(toml), "--weights", str(path), "--clips", "2", "--steps", "1"]) == 0
    assert '"clips": 2' in capsys.readouterr().out

    model = load_video_model(file)
    with pytest.raises(ValueError, match=r"look at pictures through CLIP vision.*in ComfyUI"):
        text = torch.zeros(1, 7, CONTEXT)
        model.sample(torch.zeros(1, 4, 8, 8), text, text, frames=FRAMES, steps=1, guidance_scale=1)


def test_the_dry_run_counts_what_looks_at_pictures() -> None:
    text = describe(parse(own_way()))
    place = text.splitlines().index("where weights come from")
    assert "injection (rate 0.001)" in text.splitlines()[place + 1]


def test_what_cannot_be_trained_is_said_in_a_sentence(home: Path) -> None:
    with pytest.raises(ValueError, match=r"have no features of CLIP vision.*--clip-vision.*spade"):
        prepared(own_way("mine"))
    write_clips(
        home / "data" / "other", FRAMES, [2.0], channels=4, contexts=CONTEXT, side=(16, 8), vision=(5, 64)
    )
    with pytest.raises(ValueError, match=r"features of shape \(5, 64\).*\(5, 1280\) was expected"):
        prepared(own_way("other"))
    with pytest.raises(ValueError, match="no features of CLIP vision"):
        prepared(own_way(data={"folder": "seen", "test_folder": "mine", "batch": 2}))
    write_crafter(home / "dynamicrafter_512_interp.safetensors", replace(UNET, context_dim=CONTEXT))
    with pytest.raises(ValueError, match=r"makes the frames between two pictures.*spade"):
        prepared(own_way(model={"motion_from": "dynamicrafter_512_interp.safetensors"}))
    loop.run(parse(own_way()))
    with pytest.raises(
        ValueError, match=r"my_base.safetensors looks at one picture.*a window of TSR has two"
    ):
        prepared(
            {
                **config("", stage="tsr"),
                "init_from": str(home / "runs/my_base/my_base.safetensors"),
                "model": {},
            }
        )


def test_gradient_checkpointing_changes_nothing() -> None:
    """The resampler's gradients come through the transformers that recompute."""

    def after(**model: Any) -> tuple[float, dict[str, Tensor]]:
        given = own_way(model=model, seed=3)
        stage = prepared(given)
        trainer = build(parse(given), stage)
        loss = train_step(trainer)["loss"]
        return float(loss), stage.video.appearnet.state_dict()

    (loss, plain), (same, recomputed) = after(), after(gradient_checkpointing=True)
    assert loss == pytest.approx(same, rel=1e-5)
    for key, value in plain.items():
        assert_close(recomputed[key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"precision": "bf16-mixed"}], ids=str)
def test_other_precisions_and_optimizers_train_it_too(changes: dict[str, Any], home: Path) -> None:
    given = own_way(model={"lora_rank": 2}, **changes)
    optim = {**given["optim"], "optimizer": "muon", "groups": {"injection": 1.0, "temporal": 0, "lora": 1.0}}
    optim["groups"]["spatial"] = 0
    loop.run(parse({**given, "optim": optim}))
    file = read_checkpoint(home / "runs/my_base/my_base.safetensors")
    assert all(value.isfinite().all() for value in file.part("appearnet").values())
    published = read_crafter(home / FILE).appearnet
    assert published and (file.part("appearnet")["resampler.latents"] != published["resampler.latents"]).any()


def test_every_bucket_and_shard_has_features(home: Path) -> None:
    """Sets that were put together by hand: told before training, whichever part lacks them."""
    for name, shape in (("a", (POSITIONS, CLIP_WIDTH)), ("b", None)):
        write_clips(
            home / "data/buckets" / name,
            FRAMES,
            [2.0],
            channels=4,
            contexts=CONTEXT,
            side=(16, 8),
            vision=shape,
        )
    with pytest.raises(ValueError, match=r"buckets/b have no features"):
        prepared(own_way("buckets"))
    folder = home / "data/seen"
    held = load_file(folder / "00000.safetensors")
    save_file({key: value for key, value in held.items() if key != "vision"}, folder / "00001.safetensors")
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "shards": index["shards"] * 2}))
    with pytest.raises(ValueError, match=r"seen have no features"):
        prepared(own_way())


def test_mid_grey_of_another_shape_and_a_set_without(home: Path) -> None:
    path = home / "data/seen/empty.safetensors"
    held = load_file(path)
    save_file({**held, "grey": held["grey"][:1].clone()}, path)
    with pytest.raises(ValueError, match=r"mid grey of shape \(1, 1280\), \(5, 1280\) was expected"):
        prepared(own_way())
    save_file(held, path)
    loop.run(parse(own_way()))
    trained = str(home / "runs/my_base/my_base.safetensors")
    with pytest.raises(ValueError, match=r"no features .* prepare them with --clip-vision$"):
        prepared({**own_way("mine"), "init_from": trained, "model": {}})


def test_a_set_of_another_clip_vision_is_told(home: Path) -> None:
    loop.run(parse(own_way()))
    trained = str(home / "runs/my_base/my_base.safetensors")
    again = {**own_way(), "init_from": trained, "model": {}}
    path = home / "data/seen/empty.safetensors"
    held = load_file(path)
    save_file({**held, "grey": held["grey"] * (1 + 1e-3)}, path)
    prepared(again)
    save_file({**held, "grey": held["grey"].roll(1, dims=-1)}, path)
    with pytest.raises(ValueError, match=r"seen hold features of another CLIP vision"):
        prepared(again)


def test_what_the_file_recommends(home: Path) -> None:
    """The published sampler, but the paper's gamma, as the noise prior is trained here; the config's keys win."""
    published = read_crafter(home / FILE).spec.sampling
    assert published.sampler != "euler" and published.gamma == 0

    def recommended(**changes: Any) -> Any:
        return prepared(own_way(**changes)).video.spec.sampling

    assert recommended() == replace(published, gamma=0.02)
    assert recommended(sampling={"cfg": 2.0}) == replace(published, gamma=0.02, cfg=2.0)
    assert recommended(model={"lambda": 0.0}).gamma == 0
