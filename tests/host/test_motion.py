"""Motion weights on a stock MODEL: its weights without LoRAs, its LoRAs once, its dtype, its patches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from devtools.check import tiny
from microcinema_core.config import UNetConfig

CONFIG = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2, 2, 2),
    num_res_blocks=1,
    context_dim=768,
    num_heads=8,
    num_head_channels=-1,
    use_linear_in_transformer=False,
).as_2d()
FRAMES = 4
WEIGHT = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"


@pytest.fixture
def stock(comfy_in_process: Path) -> Callable[..., Any]:
    """Return a maker of stock SD 1.x MODELs with the same random weights."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    from microcinema_core.adapter.network import host_unet_config

    def make(
        dtype: torch.dtype = torch.float32,
        manual_cast: torch.dtype | None = None,
        weights: dict[str, Tensor] | None = None,
    ) -> Any:
        shape = host_unet_config(CONFIG)
        shape |= {"image_size": 32, "use_spatial_transformer": True, "legacy": False, "dtype": dtype}
        del shape["microcinema"]
        settings = comfy.supported_models.SD15({})
        settings.unet_config = shape
        settings.manual_cast_dtype = manual_cast
        model = comfy.model_base.BaseModel(settings)
        given = tiny.unet_weights(CONFIG) if weights is None else weights
        model.load_model_weights({key: value.to(dtype) for key, value in given.items()})
        device = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)

    return make


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of motion modules; `still` ones have zeros as last projections."""
    diffusers = pytest.importorskip("diffusers")

    def write(*, still: bool = False, middle: bool = False, pia: bool = False) -> Path:
        net = diffusers.MotionAdapter(
            block_out_channels=(32, 64, 64, 64),
            motion_layers_per_block=1,
            use_motion_mid_block=middle,
            conv_in_channels=9 if pia else None,
        )
        state = tiny.random_weights(net, 2)
        state |= {key: value * 0 for key, value in state.items() if still and "proj_out" in key}
        path = tmp_path / f"motion_{still}_{middle}_{pia}.safetensors"
        save_file(state, str(path))
        return path

    return write


def sampled(model: Any, frames: int = FRAMES) -> Tensor:
    """Sample with the stock KSampler's function, two steps."""
    import comfy.sample

    generator = torch.Generator().manual_seed(1)
    text = [[torch.randn(1, 77, 768, generator=generator), {}]]
    negative = [[torch.randn(1, 77, 768, generator=generator), {}]]
    noise = torch.randn(frames, 4, 8, 8, generator=generator)
    return comfy.sample.sample(
        model,
        noise,
        2,
        3.0,
        "euler",
        "normal",
        text,
        negative,
        torch.zeros_like(noise),
        disable_pbar=True,
        seed=0,
    )


def lora(model: Any) -> Any:
    """Return a clone with a patch of one weight, as a LoRA makes it."""
    patched = model.clone()
    change = torch.randn(32, 32, generator=torch.Generator().manual_seed(9))
    patched.add_patches({WEIGHT: ("diff", (change,))}, 0.7)
    return patched


def test_without_motion_it_is_the_stock_model(stock: Any, module: Any) -> None:
    from microcinema_core.adapter.motion import add_motion

    image = stock()
    video, appearnet = add_motion(image, module(still=True))
    with pytest.raises(ValueError, match="choose a SparseCtrl file"):
        appearnet.config  # noqa: B018
    assert float(video.model.model_sampling.sigma_max) == pytest.approx(25.146, abs=1e-3)
    plain = image.clone()
    plain.add_object_patch("model_sampling", video.model.model_sampling)
    expected = sampled(plain)
    assert float((sampled(video) - expected).abs().max() / expected.abs().max()) < 1e-4
    moving = sampled(add_motion(image, module())[0])
    assert not torch.allclose(moving, sampled(video), atol=1e-2)


@pytest.mark.parametrize("stock_runs_first", [False, True])
def test_a_lora_acts_once_before_or_after(stock: Any, module: Any, stock_runs_first: bool) -> None:
    from microcinema_core.adapter.motion import add_motion

    image = stock()
    before = lora(image)
    if stock_runs_first:
        sampled(before)  # bakes the LoRA into the shared network
    first = add_motion(before, module())[0]
    second = lora(add_motion(image, module())[0])
    unpatched = add_motion(image, module())[0]
    made = sampled(first)
    assert torch.equal(made, sampled(second))
    assert not torch.allclose(made, sampled(unpatched), atol=1e-4)
    assert torch.equal(made, sampled(first)), "a second run must not apply it twice"
    assert first.patches_uuid not in (before.patches_uuid, image.patches_uuid)


def test_running_the_video_model_leaves_the_stock_model_alone(stock: Any, module: Any) -> None:
    from microcinema_core.adapter.motion import add_motion

    image = stock()
    expected = sampled(image)
    shared = image.model.state_dict()[WEIGHT]
    video = lora(add_motion(image, module())[0])
    assert video.model.state_dict()[WEIGHT].data_ptr() == shared.data_ptr()
    sampled(video)
    assert torch.equal(sampled(image), expected)


def test_dtype_and_manual_cast_are_the_models(stock: Any, module: Any) -> None:
    from microcinema_core.adapter.motion import add_motion

    image = stock(torch.float8_e4m3fn, torch.float32)
    video, _ = add_motion(image, module())
    assert video.model.get_dtype() == torch.float8_e4m3fn and video.model.manual_cast_dtype == torch.float32
    assert {tensor.dtype for tensor in video.model.diffusion_model.state_dict().values()} == {
        torch.float8_e4m3fn
    }
    assert bool(torch.isfinite(sampled(video)).all())


def test_patches_and_options_carry_over(stock: Any, module: Any, caplog: pytest.LogCaptureFixture) -> None:
    from microcinema_core.adapter.motion import add_motion

    image, seen = stock(), []
    image.set_model_attn1_patch(lambda q, k, v, _: (seen.append(1), (q, k, v))[1])
    image.add_object_patch("model_sampling", image.model.model_sampling)
    with caplog.at_level(logging.INFO):
        video, _ = add_motion(image, module())
    assert "noise schedule" in caplog.text and "model_sampling" not in video.object_patches
    sampled(video)
    assert seen


def test_pia_gives_its_appearnet(stock: Any, module: Any) -> None:
    from microcinema_core.adapter.motion import add_motion

    video, appearnet = add_motion(stock(), module(pia=True))
    assert appearnet is not None and appearnet.config.hint == "affinity"
    assert video.model.spec.betas == "linear" and video.model.spec.lambda_ == 0


def test_other_models_are_refused(stock: Any, module: Any) -> None:
    from microcinema_core.adapter.motion import add_motion

    video, _ = add_motion(stock(), module())
    with pytest.raises(ValueError, match="video model already"):
        add_motion(video, module())
    injected = stock()
    injected.set_injections("other_pack", [])
    with pytest.raises(ValueError, match="other_pack"):
        add_motion(injected, module())
    quantised = stock()
    quantised.model.model_config.custom_operations = object()
    with pytest.raises(ValueError, match="quantised"):
        add_motion(quantised, module())


@pytest.fixture
def sparsectrl(tmp_path: Path) -> Any:
    """Return a small random SparseCtrl as an APPEARNET."""
    from microcinema_core.adapter.motion import load_sparsectrl

    diffusers = pytest.importorskip("diffusers")
    net = diffusers.SparseControlNetModel(
        block_out_channels=(32, 64, 64, 64), layers_per_block=1, cross_attention_dim=768
    )
    path = tmp_path / "sparse.safetensors"
    save_file(tiny.random_weights(net, 5), str(path))
    return load_sparsectrl(path)


def picture(seed: int) -> dict[str, Tensor]:
    return {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))}


def watch(appearnet: Any, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Record the inputs of each evaluation of an AppearNet."""
    seen: list[Tensor] = []
    net = appearnet.patcher.model
    features = net.features
    monkeypatch.setattr(
        net,
        "features",
        lambda z, t, context, frames: (seen.append(z), features(z, t, context, frames=frames))[1],
    )
    return seen


SCALE = 0.18215
"""Factor of Stable Diffusion's latents in model space."""


def test_sparsectrl_sees_the_given_frames_at_each_step(
    stock: Any, module: Any, sparsectrl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from microcinema_core import adapter
    from microcinema_core.adapter.motion import add_motion

    seen = watch(sparsectrl, monkeypatch)
    video, _ = add_motion(stock(), module())
    options = {"anchor": "first", "last_frame": picture(4), "gamma": 0.0}
    model = adapter.apply_appearance(video, sparsectrl, picture(3), **options)
    made = sampled(model)
    assert len(seen) == 2, "each step is one evaluation of both guidance branches"
    expected = torch.zeros(FRAMES, 5, 8, 8)
    expected[0, :4], expected[-1, :4] = picture(3)["samples"][0] * SCALE, picture(4)["samples"][0] * SCALE
    expected[[0, -1], 4] = 1
    for inputs in seen:
        torch.testing.assert_close(inputs, expected.repeat(2, 1, 1, 1))
    assert not torch.allclose(made, sampled(video), atol=1e-2)
    sampled(adapter.apply_appearance(video, sparsectrl, picture(7), anchor="last"))
    assert torch.equal(made, sampled(model)), "what ran before must not matter"


@pytest.mark.parametrize(
    ("anchor", "affinities"),
    [
        ("centre", [0.8, 0.8, 1.0, 0.8]),
        ("first", [1.0, 0.8, 0.7, 0.7]),
        ("last", [0.7, 0.7, 0.8, 1.0]),
    ],
)
def test_pia_sees_the_picture_and_its_affinity(
    anchor: Any, affinities: list[float], stock: Any, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from microcinema_core import adapter
    from microcinema_core.adapter.motion import add_motion

    video, pia = add_motion(stock(), module(pia=True))
    seen = watch(pia, monkeypatch)
    motion: Any = "medium" if anchor == "centre" else "large"
    sampled(adapter.apply_appearance(video, pia, picture(3), anchor=anchor, motion=motion))
    assert len(seen) == 1, "it depends neither on the step nor on the text"
    torch.testing.assert_close(seen[0][:, :4], (picture(3)["samples"] * SCALE).expand(FRAMES, -1, -1, -1))
    assert seen[0][:, 4, 0, 0].tolist() == pytest.approx(affinities)


def test_what_weights_do_not_take_is_refused(stock: Any, module: Any) -> None:
    from microcinema_core import adapter
    from microcinema_core.adapter.motion import add_motion

    video, pia = add_motion(stock(), module(pia=True))
    with pytest.raises(ValueError, match="takes one picture"):
        adapter.apply_appearance(video, pia, picture(1), last_frame=picture(2))


@pytest.mark.parametrize("count", [3, 5])
def test_sparsectrl_interpolates_between_key_frames(
    count: int, stock: Any, module: Any, sparsectrl: Any
) -> None:
    """Windows of 16 frames with key frames at 0, 5, 10, 15: keys bit for bit, whatever is sampled at once."""
    from microcinema_core import adapter
    from microcinema_core.adapter.motion import add_motion

    generator = torch.Generator().manual_seed(2)
    text = [[torch.randn(1, 77, 768, generator=generator), {}]]
    settings = adapter.SamplerSettings(text, text, 0, 2, 1.0, "euler", "normal")
    keys = torch.randn(count, 4, 8, 8, generator=generator)
    video, _ = add_motion(stock(), module())
    made = [
        adapter.interpolate_video(
            video, sparsectrl, {"samples": keys}, settings, rounds=1, lambda_=-1.0, gamma=0.02, chunk=chunk
        )["samples"]
        for chunk in (1, 2)
    ]
    assert made[0].shape[0] == 5 * (count - 1) + 1
    assert torch.equal(made[0][::5], keys)
    torch.testing.assert_close(made[0], made[1], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_four_steps_of_ksampler_are_diffusers_pipeline(
    stock: Any, comfy_in_process: Path, tmp_path: Path
) -> None:
    """The stock KSampler with euler and ddim_uniform is DDIM; only its starting noise is scaled otherwise."""
    import comfy.sample

    from microcinema_core import adapter
    from microcinema_core.files.stable_diffusion import from_diffusers
    from tests.core import motion_oracles as oracles

    image, motion, control = (
        oracles.image_unet(768),
        oracles.adapter(middle=False),
        oracles.sparse(768),
    )
    for name, net in (("motion", motion), ("sparse", control)):
        state = {key: value.contiguous() for key, value in net.state_dict().items()}
        save_file(state, str(tmp_path / f"{name}.safetensors"))
    generator = torch.Generator().manual_seed(8)
    noise = torch.randn(FRAMES, 4, 8, 8, generator=generator)
    pictures = torch.randn(2, 4, 8, 8, generator=generator)
    texts = [torch.randn(1, 77, 768, generator=generator) for _ in range(2)]
    expected = oracles.pipeline_run(
        image, motion, control, noise, pictures, [0, FRAMES - 1], (texts[0], texts[1]), 4, 5.0
    )

    loaded = stock(weights=from_diffusers(image.state_dict()))
    video, _ = adapter.add_motion(loaded, tmp_path / "motion.safetensors")
    ends = [{"samples": end[None] / SCALE} for end in pictures]
    model = adapter.apply_appearance(
        video,
        adapter.load_sparsectrl(tmp_path / "sparse.safetensors"),
        ends[0],
        anchor="first",
        last_frame=ends[1],
    )
    sigma = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", 4)[0]
    made = comfy.sample.sample(
        model,
        noise * (1 + sigma**2).sqrt() / sigma,
        4,
        5.0,
        "euler",
        "ddim_uniform",
        [[texts[0], {}]],
        [[texts[1], {}]],
        torch.zeros_like(noise),
        disable_pbar=True,
        seed=0,
    )
    off = float((made * SCALE - expected).abs().max() / expected.abs().max())
    assert off < 1e-3, "a network of random weights multiplies the rounding of the host's noise levels"


def test_the_memory_estimate_counts_an_appearnet_that_sees_each_step(
    stock: Any, module: Any, sparsectrl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host asks before the run starts and at each step."""
    from microcinema_core import adapter

    video, pia = adapter.add_motion(stock(), module(pia=True))
    inner = video.model
    estimate = type(inner).memory_required
    asked: list[tuple[int, float]] = []

    def watched(self: Any, shape: Any, cond_shapes: Any = None) -> float:
        asked.append((shape[0], estimate(self, shape, cond_shapes)))
        return asked[-1][1]

    def asked_for(model: Any) -> dict[int, float]:
        asked.clear()
        sampled(model)
        assert len({value for count, value in asked if count == 2 * FRAMES}) == 1
        return dict(asked)

    monkeypatch.setattr(type(inner), "memory_required", watched)
    alone = asked_for(video)
    assert asked_for(adapter.apply_appearance(video, pia, picture(1))) == alone
    beside = asked_for(adapter.apply_appearance(video, sparsectrl, picture(1)))
    assert beside.keys() == alone.keys()
    # Features of 32 and 64 channels at four levels of 8 x 8 latents, and the middle, in float32, twice.
    values = 2 * 32 * 64 + 32 * 16 + 64 * 16 + 64 * 4 * 2 + 64 * 1 * 3
    for count in alone:
        assert beside[count] - alone[count] == pytest.approx(2 * count * values * 4)


def test_a_prediction_set_before_the_loader_stays(stock: Any, module: Any) -> None:
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    from microcinema_core import adapter

    (patched,) = ModelSamplingDiscrete().patch(stock(), "v_prediction", False)
    video, _ = adapter.add_motion(patched, module())
    assert video.model.spec.prediction == "v"
    import comfy.model_sampling

    sampling = video.get_model_object("model_sampling")
    assert isinstance(sampling, comfy.model_sampling.V_PREDICTION)
    assert float(sampling.sigma_max) == pytest.approx(25.146, abs=1e-3)
    inflated = adapter.inflate_model(patched, injection="concat", temporal_layout="paper")
    assert inflated.model.model.spec.prediction == "v"


def test_a_second_picture_fits_or_is_named(stock: Any, module: Any, sparsectrl: Any) -> None:
    from microcinema_core import adapter

    video, _ = adapter.add_motion(stock(), module())
    large = {"samples": torch.zeros(1, 4, 16, 16)}
    several = {"samples": torch.zeros(3, 4, 8, 8)}

    def applied(centre: Any = None, **given: Any) -> Any:
        return adapter.apply_appearance(video, sparsectrl, centre or picture(1), **given)

    with pytest.raises(ValueError, match=r"last_frame has latents of .* give both pictures the same size"):
        applied(last_frame=large, anchor="first")
    with pytest.raises(ValueError, match="last_frame holds 3 frames, one was expected"):
        applied(last_frame=several, anchor="first")
    for given in ({"last_frame": picture(2), "anchor": "first"}, {"anchor": "last"}):
        with pytest.raises(ValueError, match=r"centre_frame holds 3 frames, .* have no place"):
            applied(several, **given)
    with pytest.raises(ValueError, match="in a video of 2 frames the picture at centre and last_frame"):
        sampled(applied(last_frame=picture(2)), frames=2)


def test_published_weights_take_no_lambda(stock: Any, module: Any) -> None:
    from microcinema_core import adapter

    video, pia = adapter.add_motion(stock(), module(pia=True))
    with pytest.raises(ValueError, match="trained without the noise prior: use 0 or -1"):
        adapter.apply_appearance(video, pia, picture(1), lambda_=0.5)
    with pytest.raises(ValueError, match="trained without the noise prior: use 0 or -1"):
        adapter.override_prior(video, lambda_=0.5, gamma=0.0, centre_frame=picture(1))
    adapter.override_prior(video, lambda_=-1.0, gamma=0.0, centre_frame=picture(1))


def test_an_earlier_nodes_motion_stays_on_auto(stock: Any, module: Any) -> None:
    from microcinema_core import adapter
    from microcinema_core.adapter.model import ATTACHMENT

    video, pia = adapter.add_motion(stock(), module(pia=True))
    first = adapter.apply_appearance(video, pia, picture(1), motion="large")
    again = adapter.apply_appearance(first, pia, picture(1))
    assert again.get_attachment(ATTACHMENT).motion == "large"
    assert (
        adapter.apply_appearance(first, pia, picture(1), motion="small").get_attachment(ATTACHMENT).motion
        == "small"
    )


def test_sparsectrl_numbers_its_frames_too(stock: Any, sparsectrl: Any) -> None:
    from microcinema_core import adapter

    plain = adapter.inflate_model(stock(), injection="concat", temporal_layout="paper").model
    model = adapter.apply_appearance(plain, sparsectrl, picture(1))
    with pytest.raises(ValueError, match="33 frames, and these motion weights take at most 32"):
        sampled(model, frames=33)


@pytest.mark.parametrize("frames", [FRAMES, 16, 24])
def test_another_number_of_frames_is_told(
    stock: Any, module: Any, caplog: pytest.LogCaptureFixture, frames: int
) -> None:
    from microcinema_core import adapter

    video, _ = adapter.add_motion(stock(), module())
    with caplog.at_level(logging.WARNING):
        sampled(video, frames=frames)
    told = [record for record in caplog.records if "were trained on 16" in record.getMessage()]
    assert len(told) == (frames != 16)


def test_two_rounds_of_long_windows_count_progress_and_can_be_cancelled(
    stock: Any, module: Any, sparsectrl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management
    import comfy.utils

    from microcinema_core import adapter

    generator = torch.Generator().manual_seed(2)
    text = [[torch.randn(1, 77, 768, generator=generator), {}]]
    settings = adapter.SamplerSettings(text, text, 0, 2, 1.0, "euler", "normal")
    keys = {"samples": torch.randn(5, 4, 8, 8, generator=generator)}
    video, _ = adapter.add_motion(stock(), module())
    seen: list[tuple[int, int]] = []
    stop_at = 10**9

    def hook(value: int, total: int, *_: Any, **__: Any) -> None:
        seen.append((value, total))
        if value >= stop_at:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    made = adapter.interpolate_video(video, sparsectrl, keys, settings, rounds=2, chunk=2)["samples"]
    assert made.shape[0] == 101 and torch.equal(made[::25], keys["samples"])
    windows = 2 + 7  # 5 keys: pairs 0-2 and 1-3; 21 frames: seven windows of three of their 20 pairs
    assert {total for _, total in seen} == {2 * windows} and seen[-1][0] == 2 * windows
    values = [value for value, _ in seen]
    assert values == sorted(values)
    seen.clear()
    stop_at = 6
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        adapter.interpolate_video(video, sparsectrl, keys, settings, rounds=2, chunk=1)
    assert max(value for value, _ in seen) < 2 * windows
