"""Training on top of published motion weights: what is borrowed, one step against a literal one, what the file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors import safe_open
from torch import Tensor
from torch.testing import assert_close

from microcinema_core.config import UNetConfig
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.published import read_motion_module
from microcinema_core.files.stable_diffusion import config_of, from_diffusers
from microcinema_core.networks.unet import is_temporal
from microcinema_core.train import loop
from microcinema_core.train.config import parse
from microcinema_core.train.plan import describe
from microcinema_core.train.step import train_step
from microcinema_core.train.trainer import Trainer, build
from microcinema_core.train.video import VideoStage
from tests.core.motion_oracles import adapter, diffusers, image_unet, per_frame_norms
from tests.train.clip_world import write_clips
from tests.train.warm_world import CONTEXT, FRAMES, RATE, config, in_warm_home, prepared, save


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_warm_home(tmp_path, monkeypatch)
    return tmp_path


def image_config(home: Path) -> UNetConfig:
    with safe_open(home / "sd.safetensors", "pt") as file:
        return config_of(from_diffusers({key: file.get_tensor(key) for key in file.keys()}))  # noqa: SIM118


def test_each_group_starts_where_it_should(home: Path) -> None:
    stage = prepared(config())
    unet = stage.video.unet.state_dict()
    motion = read_motion_module(home / "motion.safetensors", image_config(home))
    groups = {name: stage.group_of(f"unet.{name}") for name in unet}
    borrowed = {name for name, group in groups.items() if group == "temporal"}
    assert borrowed == set(motion.temporal) == {name for name in unet if is_temporal(name)}
    assert all(torch.equal(unet[name], motion.temporal[name]) for name in borrowed)
    with safe_open(home / "sd.safetensors", "pt") as file:
        spatial = from_diffusers({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    assert {name for name, group in groups.items() if group == "spatial"} == set(spatial)
    assert all(torch.equal(unet[name], spatial[name]) for name in spatial)
    assert stage.video.spec.betas == "linear"
    assert stage.video.appearnet.config.injection == "spade"
    assert all(not value.any() for key, value in stage.video.appearnet.state_dict().items() if ".out." in key)


def step_literally(stage: VideoStage, trainer: Trainer, oracle: Any) -> Tensor:
    """One step of diffusers' network on what our step drew: Eq. 3's noise, linear betas, Eq. 5's loss, AdamW."""
    drawn: dict[str, Tensor] = {}
    predict, noise = stage.video.predict, stage.noise

    def watched_predict(z_t: Tensor, t: Tensor, context: Tensor, injection: Any) -> Tensor:
        drawn.update(z_t=z_t, t=t, context=context)
        return predict(z_t, t, context, injection)

    def watched_noise(z_0: Tensor, random: Any) -> Tensor:
        drawn.update(z_0=z_0, eps_n=noise(z_0, random))
        return drawn["eps_n"]

    stage.video.predict, stage.noise = watched_predict, watched_noise  # type: ignore[method-assign]
    ours = train_step(trainer)["loss"]

    alpha_bar = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64), 0).float()
    level = alpha_bar[drawn["t"].long()].view(-1, 1, 1, 1, 1)
    z_0 = drawn["z_0"]
    eps = drawn["eps_n"] + 0.03 * z_0[:, FRAMES // 2].unsqueeze(1)
    z_t = level.sqrt() * z_0 + (1 - level).sqrt() * eps
    assert_close(z_t, drawn["z_t"], rtol=1e-5, atol=1e-5)
    made = oracle(
        rearrange(z_t, "b f c h w -> b c f h w"), drawn["t"], drawn["context"].repeat_interleave(FRAMES, 0)
    ).sample
    loss = (made - rearrange(eps, "b f c h w -> b c f h w")).square().mean()
    assert_close(torch.as_tensor(float(ours)), loss.detach(), rtol=1e-4, atol=1e-5)
    moved = [p for name, p in oracle.named_parameters() if "motion_modules" in name]
    optimizer = torch.optim.AdamW(moved, lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    loss.backward()
    optimizer.step()
    return loss


def test_one_step_is_a_literal_step_of_diffusers_network(home: Path) -> None:
    stage = prepared(config())
    trainer = build(parse(config()), stage)
    oracle = per_frame_norms(
        diffusers.UNetMotionModel.from_unet2d(image_unet(CONTEXT), adapter(middle=False)).eval()
    )
    before = {key: value.clone() for key, value in stage.video.unet.state_dict().items()}
    step_literally(stage, trainer, oracle)
    state = {
        key.replace("norm.norm.", "norm."): value.detach()
        for key, value in oracle.state_dict().items()
        if "motion_modules" in key
    }
    save(home / "stepped.safetensors", state)
    stepped = read_motion_module(home / "stepped.safetensors", image_config(home)).temporal
    after = stage.video.unet.state_dict()
    agreeing = moved = 0
    for key, value in stepped.items():
        change, literal = after[key] - before[key], value - before[key]
        # AdamW's first step is the sign of the gradient: where that is rounding, so is the sign.
        agreeing += int(((change - literal).abs() < 0.1 * RATE).sum())
        moved += change.numel()
    assert agreeing / moved > 0.99


def test_pia_is_fine_tuned_as_it_is(home: Path) -> None:
    stage = prepared(config("pia.safetensors", model={"injection": "concat"}))
    motion = read_motion_module(home / "pia.safetensors", image_config(home))
    assert motion.appearnet is not None
    for key, value in motion.appearnet.items():
        assert torch.equal(stage.video.appearnet.state_dict()[key], value)
    loop.run(parse(config("pia.safetensors", model={"injection": "concat"})))
    made = read_checkpoint(home / "runs/my_base/my_base.safetensors", expect_roles=("base",))
    assert made.described("appearnet").hint == "affinity"
    assert made.spec.lambda_ == 0.03


def test_a_new_appearnet_on_pias_motion(home: Path) -> None:
    stage = prepared(config("pia.safetensors"))
    assert stage.video.appearnet.config.injection == "spade"
    assert [one.gives for one in stage.sources] == [("spatial",), ("temporal",)]


def test_the_file_names_its_sources_and_their_licences(home: Path) -> None:
    save(home / "motion.safetensors", adapter(middle=True).state_dict(), license="my own")
    loop.run(parse(config()))
    path = home / "runs/my_base/my_base.safetensors"
    known = json.loads(read_checkpoint(path).metadata["microcinema.sources"])
    assert known == [
        {
            "file": "sd.safetensors",
            "kind": "Stable Diffusion 1.x",
            "gives": ["spatial"],
            "licence": "CreativeML Open RAIL-M (of the original)",
        },
        {"file": "motion.safetensors", "kind": "AnimateDiff", "gives": ["temporal"], "licence": "my own"},
    ]
    write_clips(home / "data" / "windows", 5, [8.0, 32.0], channels=4, contexts=CONTEXT, side=(16, 8))
    tsr = {**config("", stage="tsr"), "init_from": str(path), "data": {"folder": "windows", "batch": 2}}
    tsr["model"] = {}
    loop.run(parse(tsr))
    later = read_checkpoint(home / "runs/my_tsr/my_tsr.safetensors")
    assert json.loads(later.metadata["microcinema.sources"]) == known
    assert (later.spec.betas, later.spec.lambda_) == ("linear", 0.03)


def test_the_dry_run_says_what_is_new_and_what_is_borrowed() -> None:
    lines = describe(parse(config())).splitlines()
    place = lines.index("where weights come from")
    sd, motion, new = lines[place + 1 : place + 4]
    assert sd.startswith("  sd.safetensors: Stable Diffusion 1.x") and sd.endswith(
        "gives spatial (rate 0.0001)"
    )
    assert motion.startswith("  motion.safetensors: AnimateDiff") and motion.endswith(
        "gives temporal (rate 0.001)"
    )
    assert new == "  new: injection (rate 0.001)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"motion_from": "none.safetensors"}, r"none\.safetensors, which is no file"),
        ({"motion_from": "v3_sd15_mm.ckpt"}, r"a \.ckpt file is a pickle"),
        (
            {"motion_from": "sd.safetensors"},
            "a motion module of AnimateDiff version 2 or 3, or PIA was expected",
        ),
    ],
)
def test_other_files_are_refused_in_a_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(config(model=given))


def test_a_start_file_with_motion_and_another_image_model(home: Path) -> None:
    loop.run(parse(config()))
    with pytest.raises(ValueError, match="has motion of its own"):
        prepared(config(init_from="runs/my_base/my_base.safetensors", name="again"))
    wide = diffusers.UNet2DConditionModel(
        block_out_channels=(64, 64, 64, 64), layers_per_block=1, cross_attention_dim=CONTEXT, attention_head_dim=1,
        use_linear_projection=True,
    )  # fmt: skip
    save(home / "sd.safetensors", wide.state_dict())
    with pytest.raises(ValueError, match=r"sd\.safetensors, a Stable Diffusion 2\.x model: .*AnimateDiff"):
        prepared(config(name="again"))
    narrow = diffusers.UNet2DConditionModel(
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
        attention_head_dim=8,
    )
    save(home / "sd.safetensors", narrow.state_dict())
    with pytest.raises(ValueError, match=r"motion\.safetensors does not fit the U-Net: .* was expected"):
        prepared(config(name="again"))
