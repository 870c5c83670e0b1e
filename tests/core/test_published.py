"""Published weights against diffusers' networks: random weights in their exact formats, loaded strictly.

diffusers takes the statistics of a motion module's first norm over the whole clip; the original takes them per frame,
so the oracles' norms are wrapped (`per_frame_norms`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from devtools.check.motion_layouts import in_webui_layout, original_names
from microcinema_core.config import SD15, TEMPORAL_LAYOUTS, UNetConfig
from microcinema_core.diffusion.ddim import classifier_free_guidance, ddim_steps
from microcinema_core.diffusion.schedule import NoiseSchedule, denoiser
from microcinema_core.files.checkpoint import load_strict
from microcinema_core.files.published import (
    MotionModule,
    add_motion_lora,
    kind_of,
    read_motion_module,
    read_sparsectrl,
    refuse_pickle,
)
from microcinema_core.files.stable_diffusion import from_diffusers
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.appearance_input import appearnet_input, line_between
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.unet import UNet3D
from tests.core.motion_oracles import (
    adapter,
    ddim_scheduler,
    image_unet,
    per_frame_norms,
    pipeline_run,
    sparse,
)

diffusers = pytest.importorskip("diffusers")

CONTEXT, FRAMES = 24, 6
IMAGE = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2, 2, 2),
    num_res_blocks=1,
    context_dim=CONTEXT,
    num_heads=8,
    num_head_channels=-1,
    use_linear_in_transformer=False,
).as_2d()


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, str(path))
    return path


def assembled(image: Any, module: MotionModule) -> UNet3D:
    net = UNet3D(module.config)
    load_strict(net, {**from_diffusers(image.state_dict()), **module.temporal}, "the U-Net")
    return net.eval()


def noisy_clip() -> tuple[Tensor, Tensor, Tensor]:
    """Return latents `(2 f) c h w` with one unlike frame, timesteps and text."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2 * FRAMES, 4, 16, 8, generator=generator)
    x[3] *= 5
    return x, torch.tensor([701.0, 50.0]), torch.randn(2, 7, CONTEXT, generator=generator)


def ours(net: UNet3D, **extra: Any) -> Tensor:
    x, t, text = noisy_clip()
    with torch.no_grad():
        return net(x, t.repeat_interleave(FRAMES), text.repeat_interleave(FRAMES, 0), frames=FRAMES, **extra)


def theirs(net: Any, extra: Tensor | None = None, **more: Any) -> Tensor:
    x, t, text = noisy_clip()
    x = rearrange(x if extra is None else torch.cat([x, extra], 1), "(b f) c h w -> b c f h w", f=FRAMES)
    with torch.no_grad():
        text = text.repeat_interleave(FRAMES, 0)
        return rearrange(net(x, t, text, **more).sample, "b c f h w -> (b f) c h w")


def off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("middle", [False, True])
def test_a_motion_module_runs_as_in_diffusers_with_norms_per_frame(middle: bool, tmp_path: Path) -> None:
    image, motion = image_unet(CONTEXT), adapter(middle=middle)
    module = read_motion_module(write(tmp_path / "m.safetensors", motion.state_dict()), IMAGE)
    oracle = diffusers.UNetMotionModel.from_unet2d(image, motion).eval()
    made = ours(assembled(image, module))
    assert off(made, theirs(oracle)) > 1e-2, "diffusers takes statistics over the clip no longer"
    assert off(made, theirs(per_frame_norms(oracle))) < 2e-5


def test_more_frames_than_the_table_has_are_refused() -> None:
    net = UNet3D(IMAGE.inflated(**TEMPORAL_LAYOUTS["animatediff"])).eval()
    text = torch.zeros(33, 7, CONTEXT)
    with pytest.raises(ValueError, match="33 frames, and these motion weights take at most 32"):
        net(torch.zeros(33, 4, 8, 8), torch.zeros(33), text, frames=33)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_both_key_layouts_are_one_module(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {key: value.to(dtype) for key, value in adapter(middle=True).state_dict().items()}
    first = read_motion_module(write(tmp_path / "a.safetensors", state), IMAGE)
    second = read_motion_module(write(tmp_path / "b.safetensors", original_names(state)), IMAGE)
    assert first.temporal.keys() == second.temporal.keys()
    assert all(
        torch.equal(first.temporal[key].float(), second.temporal[key].float()) for key in first.temporal
    )
    assert {tensor.dtype for tensor in second.temporal.values()} == {dtype}


def test_pia_is_a_concat_appearnet(tmp_path: Path) -> None:
    image, motion = image_unet(CONTEXT), adapter(middle=False, conv_in_channels=9)
    module = read_motion_module(write(tmp_path / "pia.safetensors", motion.state_dict()), IMAGE)
    oracle = per_frame_norms(diffusers.UNetMotionModel.from_unet2d(image, motion).eval())
    z_c = torch.randn(2, 4, 16, 8, generator=torch.Generator().manual_seed(4)).repeat_interleave(FRAMES, 0)
    affinity = (
        torch.tensor([0.8, 0.8, 0.8, 1.0, 0.8, 0.8]).repeat(2)[:, None, None, None].expand(-1, 1, 16, 8)
    )
    assert module.appearnet_config is not None and module.appearnet is not None
    net = AppearNet(module.appearnet_config)
    load_strict(net, module.appearnet, "PIA")
    seen = appearnet_input(z_c, [3], module.appearnet_config, frames=FRAMES)
    injection = net.inject(net.features(seen, torch.zeros(len(seen)), None, frames=FRAMES), frames=FRAMES)
    made = ours(assembled(image, module), injection=injection)
    assert off(made, theirs(oracle, torch.cat([affinity, z_c], 1))) < 2e-5


@pytest.mark.parametrize("given", [[FRAMES // 2], [0, FRAMES - 1]])
def test_sparsectrl_is_an_add_dec_appearnet(given: list[int], tmp_path: Path) -> None:
    image, motion, control = image_unet(CONTEXT), adapter(middle=False), sparse(CONTEXT)
    module = read_motion_module(write(tmp_path / "m.safetensors", motion.state_dict()), IMAGE)
    read = read_sparsectrl(write(tmp_path / "s.safetensors", original_names(control.state_dict())))
    assert read.config.unet == IMAGE
    net = AppearNet(read.config)
    load_strict(net, read.weights, "SparseCtrl")
    line = torch.randn(2 * FRAMES, 4, 16, 8, generator=torch.Generator().manual_seed(6))
    x, t, text = noisy_clip()
    each_t, each_text = t.repeat_interleave(FRAMES), text.repeat_interleave(FRAMES, 0)
    seen = appearnet_input(line, given, read.config, frames=FRAMES)
    with torch.no_grad():
        features = net.features(seen, each_t, each_text, frames=FRAMES)
        injection = net.inject(features, frames=FRAMES, strength=0.8)
        mask = torch.zeros(2, 1, FRAMES, 16, 8)
        mask[:, :, given] = 1
        condition = rearrange(line, "(b f) c h w -> b c f h w", f=FRAMES) * mask
        video = rearrange(x, "(b f) c h w -> b c f h w", f=FRAMES)
        down, mid = per_frame_norms(control)(
            video, t, each_text, condition, conditioning_mask=mask, conditioning_scale=0.8, return_dict=False
        )
    made = ours(assembled(image, module), injection=injection)
    oracle = per_frame_norms(diffusers.UNetMotionModel.from_unet2d(image, motion).eval())
    more = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    assert off(made, theirs(oracle, **more)) < 2e-5
    assert off(made, theirs(oracle)) > 1e-2


@torch.no_grad()
def test_four_steps_are_diffusers_pipeline(tmp_path: Path) -> None:
    """Guidance, linear betas, given frames: the whole sampling run, latents in and out."""
    image, motion, control = image_unet(CONTEXT), adapter(middle=False), sparse(CONTEXT)
    module = read_motion_module(write(tmp_path / "m.safetensors", motion.state_dict()), IMAGE)
    read = read_sparsectrl(write(tmp_path / "s.safetensors", control.state_dict()))
    generator = torch.Generator().manual_seed(8)
    noise = torch.randn(FRAMES, 4, 16, 8, generator=generator)
    pictures = torch.randn(2, 4, 16, 8, generator=generator)
    text, negative = (torch.randn(1, 7, CONTEXT, generator=generator) for _ in range(2))
    given, steps, scale = [0, FRAMES - 1], 4, 5.0

    made = pipeline_run(image, motion, control, noise, pictures, given, (text, negative), steps, scale)

    unet, net = assembled(image, module), AppearNet(read.config)
    load_strict(net, read.weights, "SparseCtrl")
    seen = appearnet_input(line_between(pictures, given, FRAMES), given, read.config, frames=FRAMES)
    schedule = NoiseSchedule.from_spec(ModelSpec("unet", betas="linear"))

    def with_text(context: Tensor) -> Any:
        def network(x: Tensor, t: Tensor) -> Tensor:
            each = context.expand(FRAMES, -1, -1)
            injection = net.inject(net.features(seen, t, each, frames=FRAMES), frames=FRAMES)
            return unet(x, t, each, frames=FRAMES, injection=injection)

        return denoiser(network, schedule)

    sigmas = torch.cat([schedule.sigmas[ddim_scheduler(steps).timesteps], torch.zeros(1)])
    start = noise * (1 + sigmas[0] ** 2).sqrt()
    *_, ours = ddim_steps(
        classifier_free_guidance(with_text(text), with_text(negative), scale), start, sigmas
    )
    assert off(made, ours) < 1e-4


@pytest.mark.parametrize("layout", ["mm_sd15_v3", "mm_sd15_v2", "sparsectrl"])
def test_full_size_keys_and_shapes(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files' keys and shapes are those of our networks at full size; nothing is allocated."""
    from microcinema_core.files import published

    with torch.device("meta"):
        if layout == "sparsectrl":
            state = diffusers.SparseControlNetModel().state_dict()
        else:
            state = diffusers.MotionAdapter(use_motion_mid_block=layout.endswith("v2")).state_dict()
    monkeypatch.setattr(published, "read_header", lambda _: {})
    monkeypatch.setattr(
        published, "header_shapes", lambda _: {key: tuple(t.shape) for key, t in state.items()}
    )
    monkeypatch.setattr(
        published,
        "read_tensors",
        lambda _, header, keep: ({key: t for key, t in state.items() if keep(key)}, {}),
    )
    path = Path(f"{layout}.safetensors")
    with torch.device("meta"):
        if layout == "sparsectrl":
            read = read_sparsectrl(path)
            assert read.config.unet == SD15.as_2d()
            wanted, found = AppearNet(read.config).state_dict(), read.weights
            # The convolution of its noisy input, which is zeros, is left out: 4 x 3 x 3 x 320 weights and a bias.
            count = sum(t.numel() for key, t in found.items() if key != "empty_prompt") + 11840
            assert count == sum(t.numel() for key, t in state.items() if not key.endswith(".pe"))
            assert round(count / 1e6, 2) == 496.73
        else:
            module = read_motion_module(path, SD15.as_2d())
            net = UNet3D(module.config).state_dict()
            wanted = {key: t for key, t in net.items() if "temporal." in key}
            found = module.temporal
            count = sum(t.numel() for t in found.values())
            assert round(count / 1e6, 2) == {"mm_sd15_v3": 417.14, "mm_sd15_v2": 453.21}[layout]
    assert {key: tuple(t.shape) for key, t in found.items()} == {
        key: tuple(t.shape) for key, t in wanted.items()
    }


def test_a_motion_lora_adds_up_times_down(tmp_path: Path) -> None:
    motion = adapter(middle=True)
    module = read_motion_module(write(tmp_path / "m.safetensors", motion.state_dict()), IMAGE)
    generator = torch.Generator().manual_seed(7)
    lora, at = (
        {},
        "down_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1",
    )
    for projection in ("to_q", "to_k", "to_v", "to_out"):
        lora[f"{at}.processor.{projection}_lora.down.weight"] = torch.randn(2, 64, generator=generator)
        lora[f"{at}.processor.{projection}_lora.up.weight"] = torch.randn(64, 2, generator=generator)
    added = add_motion_lora(module.temporal, write(tmp_path / "l.safetensors", lora), module.config, 0.5)
    state = motion.state_dict()
    for projection, end in (("to_q", ""), ("to_k", ""), ("to_v", ""), ("to_out", ".0")):
        key = f"down_blocks.1.motion_modules.0.transformer_blocks.0.attn2.{projection}{end}.weight"
        up, down = (lora[f"{at}.processor.{projection}_lora.{side}.weight"] for side in ("up", "down"))
        state[key] = state[key] + 0.5 * up @ down
    expected = read_motion_module(write(tmp_path / "n.safetensors", state), IMAGE).temporal
    assert all(torch.allclose(added[key], expected[key], atol=1e-6) for key in expected)
    assert sum(not torch.equal(added[key], module.temporal[key]) for key in added) == 4


V1 = {
    "down_blocks.3.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe": (
        1,
        24,
        64,
    )
}
ALIEN = {
    "AnimateDiff version 1": V1,
    "SDXL": {"module.down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (320,)},
    "Hotshot-XL": {"down_blocks.1.temporal_attentions.0.norm.weight": (640,)},
    "scribbles": {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)},
    "Load LoRA": {
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight": (320, 4)
    },
    "Stable Diffusion 1.x": {
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768)
    },
    "motion LoRA": {
        "down_blocks.0.motion_modules.0.temporal_transformer.x.processor.to_q_lora.up.weight": (320, 4)
    },
}


@pytest.mark.parametrize("words", ALIEN)
def test_other_files_are_named(words: str, tmp_path: Path) -> None:
    shapes = ALIEN[words]
    assert words in kind_of(shapes)
    path = write(tmp_path / "x.safetensors", {key: torch.zeros(shape) for key, shape in shapes.items()})
    for read in (lambda: read_motion_module(path, IMAGE), lambda: read_sparsectrl(path)):
        with pytest.raises(ValueError, match=words) as caught:
            read()
        assert str(caught.value).startswith("x.safetensors: this is ") and "expected" in str(caught.value)


@torch.no_grad()
def test_half_precision_is_off_by_its_rounding(tmp_path: Path) -> None:
    """Against diffusers' network in float32 with the same rounded weights, ours is no further off than theirs is."""
    image, motion = image_unet(CONTEXT).half().float(), adapter(middle=True).half().float()
    module = read_motion_module(write(tmp_path / "m.safetensors", motion.state_dict()), IMAGE)
    oracle = per_frame_norms(diffusers.UNetMotionModel.from_unet2d(image, motion).eval())
    exact, net = theirs(oracle), assembled(image, module).half()
    x, t, text = noisy_clip()
    each_text = text.repeat_interleave(FRAMES, 0).half()
    made = net(x.half(), t.repeat_interleave(FRAMES), each_text, frames=FRAMES)
    video = rearrange(x.half(), "(b f) c h w -> b c f h w", f=FRAMES)
    their_half = rearrange(oracle.half()(video, t, each_text).sample, "b c f h w -> (b f) c h w")
    assert made.dtype == torch.float16
    assert off(made.float(), exact) < 2 * off(their_half.float(), exact) < 2e-2


def test_sparsectrl_of_the_webui_is_the_same(tmp_path: Path) -> None:
    state = sparse(CONTEXT).state_dict()
    first = read_sparsectrl(write(tmp_path / "a.safetensors", state))
    second = read_sparsectrl(write(tmp_path / "b.safetensors", in_webui_layout(state)))
    assert first.config == second.config and first.weights.keys() == second.weights.keys()
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    load_strict(AppearNet(second.config), second.weights, "SparseCtrl")
    scribble = in_webui_layout(state)
    del scribble["input_hint_block.0.weight"], scribble["input_hint_block.0.bias"]
    with pytest.raises(ValueError, match="SparseCtrl for scribbles or pixels: get the one for pictures"):
        read_sparsectrl(write(tmp_path / "c.safetensors", scribble))


def test_motion_loras_of_the_webui_are_the_same(tmp_path: Path) -> None:
    module = read_motion_module(write(tmp_path / "m.safetensors", adapter(middle=True).state_dict()), IMAGE)
    generator = torch.Generator().manual_seed(3)
    place = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks"
    files: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for side in ("down_blocks.0", "up_blocks.1", "mid_block"):
        for attention, projection in ((0, "to_q"), (1, "to_out")):
            width = 64 if side != "down_blocks.0" else 32
            at = f"{place.replace('down_blocks.0', side)}.{attention}"
            for way, shape in (("down", (4, width)), ("up", (width, 4))):
                weight = torch.randn(shape, generator=generator)
                files[0][f"{at}.processor.{projection}_lora.{way}.weight"] = weight
                inner = f"{projection}_0" if projection == "to_out" else projection
                files[1][f"{at}_{inner}".replace(".", "_") + f".lora_{way}.weight"] = weight
    made = [
        add_motion_lora(
            module.temporal, write(tmp_path / f"{number}.safetensors", tensors), module.config, 0.8
        )
        for number, tensors in enumerate(files)
    ]
    changed = [key for key in module.temporal if not torch.equal(module.temporal[key], made[0][key])]
    assert len(changed) == 6
    assert all(torch.equal(made[0][key], made[1][key]) for key in module.temporal)


def test_files_without_a_table_of_positions_load(tmp_path: Path) -> None:
    """As AnimateLCM's, which has none."""
    state = adapter(middle=True).state_dict()
    bare = {key: value for key, value in original_names(state).items() if not key.endswith(".pe")}
    first = read_motion_module(write(tmp_path / "a.safetensors", state), IMAGE)
    second = read_motion_module(write(tmp_path / "b.safetensors", bare), IMAGE)
    assert all(torch.equal(first.temporal[key], second.temporal[key]) for key in first.temporal)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("v3_sd15_mm.ckpt", "mm_sd15_v3.safetensors"),
        ("folder/v3_sd15_sparsectrl_rgb.ckpt", "mm_sd15_v3_sparsectrl_rgb.safetensors"),
        ("folder\\\\v2_lora_ZoomIn.ckpt", "mm_sd15_v2_lora_ZoomIn.safetensors"),
        ("AnimateLCM_sd15_t2v.CKPT", "mm_sd15_AnimateLCM.safetensors"),
        ("mine.pth", "mm_sd15_v3.safetensors"),
    ],
)
def test_a_pickle_is_refused_by_its_name(name: str, twin: str) -> None:
    with pytest.raises(ValueError, match=f"is a pickle, .* {twin}") as refusal:
        refuse_pickle(name)
    assert str(refusal.value).startswith(name)
    refuse_pickle(f"{name}.safetensors")


def test_motion_loras_are_for_version_2(tmp_path: Path) -> None:
    module = read_motion_module(write(tmp_path / "m.safetensors", adapter(middle=False).state_dict()), IMAGE)
    place = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"
    weights = {
        f"{place}.processor.to_q_lora.{way}.weight": torch.zeros(shape)
        for way, shape in (("up", (32, 4)), ("down", (4, 32)))
    }
    with pytest.raises(
        ValueError, match=r"belong to AnimateDiff version 2 .*the motion file is version 3 or PIA"
    ):
        add_motion_lora(module.temporal, write(tmp_path / "l.safetensors", weights), module.config, 1.0)
    second = read_motion_module(write(tmp_path / "n.safetensors", adapter(middle=True).state_dict()), IMAGE)
    weights[f"{place}.processor.to_q_lora.alpha"] = torch.ones(1)
    with pytest.raises(
        ValueError, match=r"to_q_lora\.alpha.* in the original layout; this is another format"
    ):
        add_motion_lora(second.temporal, write(tmp_path / "l.safetensors", weights), second.config, 1.0)


def test_a_file_that_may_be_version_1_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = {
        key: value for key, value in adapter(middle=False).state_dict().items() if not key.endswith(".pe")
    }
    read_motion_module(write(tmp_path / "m.safetensors", bare), IMAGE)
    assert "it may be version 1" in caplog.text


def test_a_damaged_sparsectrl_says_what_it_lacks(tmp_path: Path) -> None:
    state = sparse(CONTEXT).state_dict()
    damaged = {
        key: value for key, value in state.items() if not key.startswith("down_blocks.0.resnets.0.conv1")
    }
    with pytest.raises(ValueError, match=r"s\.safetensors: .*(lacks|missing|whole file)"):
        read_sparsectrl(write(tmp_path / "s.safetensors", damaged))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"temporal_attention": "transformer", "temporal_heads": 7}, "do not divide"),
        ({"position_encoding": "absolute"}, "needs temporal_attention"),
        ({"temporal_conv": "per_resblock", "temporal_at": "levels"}, "needs temporal_at"),
    ],
)
def test_layouts_that_contradict_themselves(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        IMAGE.inflated(**fields)
