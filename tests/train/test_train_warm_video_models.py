"""Training on top of whole video models, ModelScope's and the Crafter family's: what is borrowed, one literal step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.crafter import read_crafter
from microcinema_core.train import loop
from microcinema_core.train.config import parse
from microcinema_core.train.plan import describe
from microcinema_core.train.step import train_step
from microcinema_core.train.trainer import build
from microcinema_core.train.video import VideoStage
from tests.core.test_modelscope_layout import ldm_keys
from tests.train.clip_world import write_clips
from tests.train.warm_world import CONTEXT, FRAMES, RATE, config, in_warm_home, prepared, write_video_models

diffusers = pytest.importorskip("diffusers")
IMAGE = {"init_from": "sd2.safetensors"}
FILES = ("modelscope.safetensors", "videocrafter2.safetensors", "dynamicrafter_512.safetensors")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_warm_home(tmp_path, monkeypatch)
    write_video_models(tmp_path)
    return tmp_path


def oracle(unet: dict[str, Tensor], rate: float | None) -> Any:
    """Return diffusers' network with these weights; a frame rate is added to its time embedding, by the formula."""
    net: Any = diffusers.UNet3DConditionModel(
        block_out_channels=(64, 128, 128, 128), layers_per_block=1, cross_attention_dim=CONTEXT
    ).eval()
    shapes = net.state_dict()
    numbers = {key: torch.tensor(float(i)) for i, key in enumerate(shapes)}
    ours = {int(value): key for key, value in ldm_keys(numbers).items()}
    net.load_state_dict({key: unet[ours[i]].reshape(shapes[key].shape) for i, key in enumerate(shapes)})
    if rate is not None:
        angles = rate * 10000 ** (-torch.arange(32) / 32)
        told = torch.cat([angles.cos(), angles.sin()])
        for layer, act in ((0, nn.functional.silu), (2, nn.Identity())):
            told = act(unet[f"fps_embed.{layer}.weight"] @ told + unet[f"fps_embed.{layer}.bias"])
        net.time_embedding.register_forward_hook(lambda _, __, out: out + told)
    return net


@pytest.mark.parametrize("file", FILES)
def test_each_group_starts_where_it_should(file: str, home: Path) -> None:
    stage = prepared(config(file, **IMAGE))
    made, read = stage.video.unet.state_dict(), read_crafter(home / file)
    assert not any("_ip" in key for key in made)
    assert {key for key in read.unet if "_ip" not in key} == set(made)
    assert all(torch.equal(value, read.unet[key]) for key, value in made.items())
    appearnet = stage.video.appearnet.state_dict()
    copied = {key: value for key, value in appearnet.items() if key.removeprefix("encoder.") in made}
    spatial = {key for key in copied if "temporal" not in key}
    assert spatial and all(torch.equal(copied[key], made[key.removeprefix("encoder.")]) for key in spatial)
    assert all(not value.any() for key, value in appearnet.items() if ".out." in key)
    groups = {stage.group_of(f"unet.{name}") for name in made}
    assert groups == {"temporal", "spatial"} and stage.video.appearnet.config.injection == "spade"


SCHEDULES = {
    # prediction, rescale at the noisiest step, zero terminal SNR, frame rate that the network is told
    "modelscope.safetensors": ("eps", 1.0, False, None),
    "videocrafter2.safetensors": ("eps", 0.7, False, 28.0),
    "dynamicrafter_512.safetensors": ("v", 0.7, True, 24.0),
}


@pytest.mark.parametrize("file", FILES)
def test_one_step_is_a_literal_step_of_diffusers_network(file: str, home: Path) -> None:
    """Eq. 3's noise, the file's own schedule and scale of clean latents, its prediction, and AdamW."""
    prediction, rescale, zero, rate = SCHEDULES[file]
    stage = prepared(config(file, **IMAGE))
    trainer = build(parse(config(file, **IMAGE)), stage)
    before = {key: value.clone() for key, value in stage.video.unet.state_dict().items()}
    theirs = oracle(before, rate)
    drawn = watched(stage)
    ours = train_step(trainer)["loss"]

    ab = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    if zero:
        root = ab.sqrt()
        ab = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    scales = torch.cat([torch.linspace(1, rescale, 400), torch.full((600,), rescale)])
    t = drawn["t"].long()
    a, b = (x[t].float().view(-1, 1, 1, 1, 1) for x in (ab.sqrt(), (1 - ab).sqrt()))
    eps = drawn["eps_n"] + 0.03 * drawn["z_0"][:, FRAMES // 2].unsqueeze(1)
    scaled = drawn["z_0"] * scales[t].view(-1, 1, 1, 1, 1)
    assert_close(drawn["z_t"], a * scaled + b * eps, rtol=1e-4, atol=1e-4)
    made = theirs(rearrange(drawn["z_t"], "b f c h w -> b c f h w"), drawn["t"], drawn["context"]).sample
    target = eps if prediction == "eps" else a * eps - b * scaled
    loss = (rearrange(made, "b c f h w -> b f c h w") - target).square().mean()
    assert_close(torch.as_tensor(float(ours)), loss.detach(), rtol=1e-4, atol=1e-5)

    moved = [
        value for name, value in theirs.named_parameters() if "temp_" in name or "transformer_in" in name
    ]
    optimizer = torch.optim.AdamW(moved, lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    loss.backward()
    optimizer.step()
    after, agreeing, counted = stage.video.unet.state_dict(), 0, 0
    for key, value in ldm_keys(dict(theirs.state_dict())).items():
        if "temporal." in key:
            change, literal = after[key] - before[key], value.reshape(before[key].shape) - before[key]
            # AdamW's first step is the sign of the gradient: where that is rounding, so is the sign.
            agreeing += int(((change - literal).abs() < 0.1 * RATE).sum())
            counted += change.numel()
    assert counted > 100_000 and agreeing / counted > 0.99


def watched(stage: VideoStage) -> dict[str, Tensor]:
    """Return what the next step draws."""
    drawn: dict[str, Tensor] = {}
    predict, noise = stage.video.predict, stage.noise

    def watched_predict(z_t: Tensor, t: Tensor, context: Tensor, injection: Any) -> Tensor:
        drawn.update(z_t=z_t, t=t, context=context)
        return predict(z_t, t, context, injection)

    def watched_noise(z_0: Tensor, random: Any) -> Tensor:
        drawn.update(z_0=z_0, eps_n=noise(z_0, random))
        return drawn["eps_n"]

    stage.video.predict, stage.noise = watched_predict, watched_noise  # type: ignore[method-assign]
    return drawn


def test_base_and_tsr_go_on_with_what_the_file_was_trained_for(home: Path) -> None:
    file = "dynamicrafter_512.safetensors"
    loop.run(parse(config(file, **IMAGE)))
    base = read_checkpoint(home / "runs/my_base/my_base.safetensors", expect_roles=("base",))
    spec = base.spec
    assert (spec.prediction, spec.zero_terminal_snr, spec.rescale, spec.rates) == (
        "v", True, 0.7, (30.0, 24.0, 15.0)
    )  # fmt: skip
    assert (spec.lambda_, spec.frames, spec.origin) == (0.03, FRAMES, "")
    known = [
        {
            "file": file,
            "kind": "DynamiCrafter 512",
            "gives": ["spatial", "temporal"],
            "licence": "Apache-2.0 for the code; built on Stable Diffusion 2.x: CreativeML Open RAIL++-M",
        }
    ]
    assert json.loads(base.metadata["microcinema.sources"]) == known
    write_clips(home / "data" / "windows", 5, [8.0, 32.0], channels=4, contexts=CONTEXT, side=(16, 8))
    tsr = {**config("", stage="tsr"), "init_from": base_path(home), "data": {"folder": "windows", "batch": 2}}
    loop.run(parse({**tsr, "model": {}}))
    later = read_checkpoint(home / "runs/my_tsr/my_tsr.safetensors")
    assert (later.spec.rescale, later.spec.rates) == (0.7, (30.0, 24.0, 15.0))
    assert json.loads(later.metadata["microcinema.sources"]) == known


def test_the_image_models_licence_joins_one_that_the_file_states(home: Path) -> None:
    save_file(load_file(home / FILES[0]), home / FILES[0], {"license": "my own"})
    (source,) = prepared(config(FILES[0], **IMAGE)).sources
    assert source.licence == "my own; built on Stable Diffusion 2.x: CreativeML Open RAIL++-M"


def base_path(home: Path) -> str:
    return str(home / "runs/my_base/my_base.safetensors")


def test_the_dry_run_says_what_is_borrowed() -> None:
    lines = describe(parse(config("videocrafter2.safetensors", **IMAGE))).splitlines()
    place = lines.index("where weights come from")
    borrowed, new = lines[place + 1 : place + 3]
    assert (
        borrowed.startswith("  videocrafter2.safetensors: VideoCrafter") and "non-commercial use" in borrowed
    )
    assert "spatial (rate 0.0001)" in borrowed and "temporal (rate 0.001)" in borrowed
    assert new == "  new: injection (rate 0.001)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"motion_from": "sd2.safetensors"}, "a model of the Crafter family was expected"),
        ({"motion_from": "motion.safetensors"}, "Stable Diffusion 2.x model: .*was expected"),
        ({"motion_from": "videocrafter2.ckpt"}, "pickle"),
        ({"motion_from": "mine.safetensors"}, "published under"),
        ({"motion_from": "wide.safetensors"}, "does not fit sd2.safetensors, whose U-Net is another one"),
    ],
)
def test_what_cannot_be_borrowed_is_said_in_a_sentence(
    given: dict[str, Any], message: str, home: Path
) -> None:
    from dataclasses import replace

    from devtools.check.crafter_files import UNET, write_crafter

    (home / "mine.safetensors").write_bytes((home / "dynamicrafter_512.safetensors").read_bytes())
    write_crafter(home / "wide.safetensors", replace(UNET, image_context=0, context_dim=64))
    with pytest.raises(ValueError, match=message):
        prepared(config(model=given, **IMAGE))
