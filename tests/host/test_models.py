"""MODEL, CLIP and VAE in the host's own nodes, in process, with small random weights."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from devtools import tiny
from microcinema_core.checkpoint import write_checkpoint
from microcinema_core.schedule import NoiseSchedule

FRAMES, STEPS = 3, 2


@pytest.fixture(scope="module")
def family(comfy_in_process: Path, tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    """The tiny family, loaded, with conditioning and a centre frame."""
    from microcinema_core import adapter

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("family")
    tiny.write_family(folder, dtype=torch.float32)
    image = adapter.load_checkpoint(folder / "tiny_image.safetensors")
    base = adapter.load_checkpoint(folder / "tiny_base.safetensors")
    tsr = adapter.load_checkpoint(folder / "tiny_tsr.safetensors")
    generator = torch.Generator().manual_seed(5)

    def text(seed: int) -> Any:
        context = torch.randn(1, 77, tiny.CONTEXT, generator=torch.Generator().manual_seed(seed))
        return [[context, {}]]

    return types.SimpleNamespace(
        adapter=adapter,
        folder=folder,
        image=image,
        base=base,
        tsr=tsr,
        centre={"samples": torch.randn(1, 8, 8, 8, generator=generator)},
        keys={"samples": torch.randn(3, 8, 8, 8, generator=generator)},
        positive=text(1),
        negative=text(2),
    )


def empty(frames: int = FRAMES) -> dict[str, Tensor]:
    return {"samples": torch.zeros(frames, 8, 8, 8)}


def ksampler(family: Any, model: Any, latent: dict[str, Tensor] | None = None, **changes: Any) -> Tensor:
    """The stock KSampler node."""
    import nodes

    settings = {
        "seed": 7,
        "steps": STEPS,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": family.positive,
        "negative": family.negative,
    } | changes
    with torch.inference_mode():
        return nodes.KSampler().sample(model, latent_image=latent or empty(), **settings)[0]["samples"]


def settings(family: Any, **changes: Any) -> Any:
    values = {
        "positive": family.positive,
        "negative": family.negative,
        "seed": 7,
        "steps": STEPS,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
    } | changes
    return family.adapter.SamplerSettings(**values)


def applied(family: Any, **changes: Any) -> Any:
    return family.adapter.apply_appearance(family.base.model, family.base.appearnet, family.centre, **changes)


def interpolated(family: Any, **changes: Any) -> Tensor:
    arguments = {"rounds": 1, "lambda_": -1.0, "gamma": 0.02, "chunk": 0}
    run = settings(family, **{key: changes.pop(key) for key in list(changes) if key not in arguments})
    with torch.inference_mode():
        return family.adapter.interpolate_video(
            family.tsr.model, family.tsr.appearnet, family.keys, run, **(arguments | changes)
        )["samples"]


def test_all_in_one_is_the_modular_way(family: Any) -> None:
    with torch.inference_mode():
        latent, fps = family.adapter.sample_video(
            family.base.model,
            family.base.appearnet,
            family.centre,
            settings(family),
            frames=FRAMES,
            lambda_=-1.0,
            gamma=0.02,
        )
    assert torch.equal(latent["samples"], ksampler(family, applied(family)))
    assert fps == 2.0


def test_an_image_models_empty_latent_is_repaired(family: Any) -> None:
    modular = ksampler(family, applied(family), {"samples": torch.zeros(FRAMES, 4, 8, 8)})
    assert torch.equal(modular, ksampler(family, applied(family)))


def test_sampler_custom_advanced(family: Any) -> None:
    from comfy_extras import nodes_custom_sampler as custom

    model = applied(family)
    with torch.inference_mode():
        noise = custom.RandomNoise.execute(7).args[0]
        guider = custom.CFGGuider.execute(model, family.positive, family.negative, 4.0).args[0]
        sampler = custom.KSamplerSelect.execute("euler").args[0]
        sigmas = custom.BasicScheduler.execute(model, "normal", STEPS, 1.0).args[0]
        out = custom.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, empty()).args[0]
    assert_close(out["samples"], ksampler(family, model))


def test_no_prior_is_the_stock_sampler_to_the_bit(family: Any) -> None:
    prior = family.adapter.override_prior(family.base.model, lambda_=0, gamma=0, centre_frame=family.centre)
    assert torch.equal(ksampler(family, prior), ksampler(family, family.base.model))
    with_prior = family.adapter.override_prior(
        family.base.model, lambda_=-1, gamma=0, centre_frame=family.centre
    )
    assert not torch.equal(ksampler(family, with_prior), ksampler(family, family.base.model))


def test_lambda_shifts_the_input_and_the_answer(family: Any) -> None:
    import comfy.model_management

    model = family.base.model.model
    prior = family.adapter.override_prior(family.base.model, lambda_=0.2, gamma=0, centre_frame=family.centre)
    y, sigma = torch.randn(FRAMES, 8, 8, 8), torch.full((FRAMES,), 3.0)
    context = family.positive[0][0].expand(FRAMES, -1, -1)
    z_c = family.centre["samples"]
    comfy.model_management.load_models_gpu([prior])
    with torch.inference_mode():
        plain = model.apply_model(y + 3.0 * 0.2 * z_c, sigma, c_crossattn=context)
        prior.pre_run()
        wrapped = model.apply_model(y, sigma, c_crossattn=context, microcinema_z_c=z_c.expand_as(y))
        prior.cleanup()
    assert_close(wrapped, plain)


def test_appearance_acts_and_its_features_are_made_once(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    net = family.base.appearnet.patcher.model
    original = net.features

    def counted(z_c: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(z_c.shape[0])
        return original(z_c, *args, **kwargs)

    monkeypatch.setattr(net, "features", counted)
    with_appearance = ksampler(family, applied(family, lambda_=0, gamma=0))
    assert calls == [1], "one frame, once, for all steps and both branches"
    assert not family.base.model.model.feature_cache.entries, "dropped after the run"
    assert not torch.equal(with_appearance, ksampler(family, family.base.model))


def test_strength_zero_and_no_span_are_the_unet_alone(family: Any) -> None:
    alone = ksampler(family, family.base.model)
    assert torch.equal(ksampler(family, applied(family, strength=0.0, lambda_=0, gamma=0)), alone)
    assert torch.equal(ksampler(family, applied(family, end_percent=0.0, start_percent=0.0, gamma=0)), alone)


def test_a_dropped_branch_runs_without_appearance(family: Any) -> None:
    from microcinema_core.adapter.model import DROP

    without = [[family.positive[0][0], {DROP: True}]]
    none = [[family.negative[0][0], {DROP: True}]]
    dropped = ksampler(family, applied(family, gamma=0), positive=without, negative=none)
    assert_close(dropped, ksampler(family, family.base.model))


def test_two_clones_in_one_graph(family: Any) -> None:
    other = {"samples": -family.centre["samples"]}
    first = applied(family)
    second = family.adapter.apply_appearance(family.base.model, family.base.appearnet, other, strength=0.5)
    before = ksampler(family, first)
    between = ksampler(family, second)
    assert torch.equal(ksampler(family, first), before)
    assert not torch.equal(between, before)


def test_gamma_only_from_full_noise_on_an_empty_latent(family: Any) -> None:
    low, high = applied(family, gamma=0.0), applied(family, gamma=0.5)
    full = {"samples": torch.ones(FRAMES, 8, 8, 8)}
    assert not torch.equal(ksampler(family, low), ksampler(family, high))
    assert torch.equal(ksampler(family, low, denoise=0.5), ksampler(family, high, denoise=0.5))
    assert torch.equal(ksampler(family, low, full), ksampler(family, high, full))


def test_gamma_on_another_familys_model(family: Any) -> None:
    """The wrapper needs nothing of ours but the centre frame; lambda is refused."""
    foreign = family.image.model.clone()

    class Foreign(torch.nn.Module):
        pass

    foreign.model = Foreign()
    foreign.model.latent_format = family.image.model.model.latent_format
    with pytest.raises(ValueError, match="not trained with the noise prior"):
        family.adapter.override_prior(foreign, lambda_=0.03, gamma=0, centre_frame=family.centre)
    assert family.adapter.override_prior(foreign, lambda_=-1, gamma=0.02, centre_frame=family.centre)
    with pytest.raises(ValueError, match="MicroCinema model was expected"):
        family.adapter.apply_appearance(foreign, family.base.appearnet, family.centre)


def test_areas_and_context_windows(family: Any) -> None:
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    model = applied(family)
    left = [[family.positive[0][0], {"area": (8, 4, 0, 0), "strength": 1.0}]]
    right = [[family.negative[0][0], {"area": (8, 4, 0, 4), "strength": 1.0}]]
    out = ksampler(family, model, positive=[*family.positive, *left, *right])
    assert out.isfinite().all() and not torch.equal(out, ksampler(family, model))
    newer = set(inspect.signature(ContextWindowsManualNode.execute).parameters) & {"freenoise"}
    windows = ContextWindowsManualNode.execute(
        model, 4, 1, "standard_static", 1, False, "pyramid", 0, **dict.fromkeys(newer, False)
    ).args[0]
    # 0.3.75 compares sigmas with steps element by element: its windows over the batch need steps = frames - 1
    assert ksampler(family, windows, empty(7), steps=6, cfg=1.0).isfinite().all()
    assert torch.equal(ksampler(family, windows), ksampler(family, model))


@pytest.mark.parametrize("injection", ["concat", "add_dec", "add_encdec"])
def test_every_injection_runs(family: Any, tmp_path: Path, injection: str) -> None:
    tiny.write_family(tmp_path, injection=injection)
    base = family.adapter.load_checkpoint(tmp_path / "tiny_base.safetensors")
    model = family.adapter.apply_appearance(base.model, base.appearnet, family.centre)
    out = ksampler(family, model, steps=1)
    assert out.isfinite().all() and not torch.equal(out, ksampler(family, base.model, steps=1))


@pytest.mark.parametrize(("rounds", "frames"), [(1, 9), (2, 33)])
def test_tsr_keeps_the_given_frames(family: Any, rounds: int, frames: int) -> None:
    out = interpolated(family, rounds=rounds, steps=1)
    assert out.shape[0] == frames
    assert torch.equal(out[:: 4**rounds], family.keys["samples"])


@pytest.mark.parametrize("sampler_name", ["euler", "euler_ancestral", "dpmpp_2m_sde", "ddim"])
def test_chunks_change_nothing(family: Any, sampler_name: str) -> None:
    one, two = (interpolated(family, sampler_name=sampler_name, chunk=chunk) for chunk in (1, 2))
    assert_close(one, two, rtol=1e-4, atol=1e-4 * float(one.std()))


def test_tsr_seeds(family: Any) -> None:
    assert torch.equal(interpolated(family, seed=3), interpolated(family, seed=3))
    assert not torch.equal(interpolated(family, seed=3), interpolated(family, seed=4))


def test_tsr_needs_two_frames_and_a_tsr_model(family: Any) -> None:
    run, arguments = settings(family), {"rounds": 1, "lambda_": -1.0, "gamma": 0.02}
    with pytest.raises(ValueError, match="at least 2"):
        family.adapter.interpolate_video(
            family.tsr.model, family.tsr.appearnet, family.centre, run, **arguments
        )
    with pytest.raises(ValueError, match=r"'base'.*'tsr'"):
        family.adapter.interpolate_video(
            family.base.model, family.base.appearnet, family.keys, run, **arguments
        )
    with pytest.raises(ValueError, match=r"'tsr'.*'base'"):
        family.adapter.sample_video(
            family.tsr.model, family.tsr.appearnet, family.centre, run, frames=9, lambda_=-1, gamma=0
        )


def test_the_text_encoder_is_the_one_that_was_trained(family: Any) -> None:
    import nodes
    from microcinema_core.text import TextEncoder

    with torch.inference_mode():
        ((context, _),) = nodes.CLIPTextEncode().encode(family.image.clip, "a galloping horse")[0]
        tokens = family.image.clip.tokenize("a galloping horse")["l"][0]
        ours = TextEncoder(tiny.TEXT)
        ours.load_state_dict(tiny.text_weights())
        expected = ours(torch.tensor([[token for token, _ in tokens]]))
    assert_close(context, expected, rtol=2e-3, atol=2e-3)


def test_the_vae_in_stock_nodes(family: Any) -> None:
    import nodes
    from microcinema_core.vae import FoldedVAE

    picture = torch.rand(2, 72, 64, 3)
    ours = FoldedVAE(tiny.VAE)
    ours.load_state_dict(tiny.vae_weights())
    with torch.inference_mode():
        latent = nodes.VAEEncode().encode(family.image.vae, picture)[0]
        assert_close(latent["samples"], ours.encode(picture.movedim(-1, 1) * 2 - 1), rtol=1e-4, atol=1e-4)
        frames = nodes.VAEDecode().decode(family.image.vae, latent)[0]
        expected = ((ours.decode(latent["samples"]) + 1) / 2).clamp(0, 1).movedim(1, -1)
        assert_close(frames, expected, rtol=1e-4, atol=1e-4)
        tiled = nodes.VAEDecodeTiled().decode(family.image.vae, latent, 64, 16)[0]
        assert tiled.shape == frames.shape == picture.shape
        grown = nodes.VAEEncodeTiled().encode(family.image.vae, picture, 64, 16)[0]
        assert grown["samples"].shape == latent["samples"].shape


def test_previews_come_from_the_vaes_own_colours(family: Any) -> None:
    from latent_preview import Latent2RGBPreviewer

    form = family.base.model.model.latent_format
    previewer = Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias)
    assert previewer.decode_latent_to_preview(family.centre["samples"]).size == (8, 8)


def v_model(folder: Path, terminal: str = "sd") -> Path:
    return write_checkpoint(
        folder / f"v_{terminal}.safetensors",
        {"unet": tiny.unet_weights(tiny.UNET)},
        role="unet",
        configs={"unet": tiny.UNET},
        lambda_=0,
        fps=2,
        frames=9,
        prediction="v",
        terminal=terminal,
    )


@pytest.mark.parametrize("terminal", ["sd", "zero"])
def test_the_noise_schedule_is_the_files_word(family: Any, tmp_path: Path, terminal: Any) -> None:
    """The host's sigmas are those that the file's training had, to the last."""
    sampling = family.adapter.load_unet(v_model(tmp_path, terminal)).get_model_object("model_sampling")
    torch.testing.assert_close(sampling.sigmas, NoiseSchedule.ending(terminal).sigmas, rtol=2e-3, atol=0)


def test_prediction_is_the_files_word(family: Any, tmp_path: Path) -> None:
    import comfy.model_base

    model = family.adapter.load_unet(v_model(tmp_path))
    assert model.model.model_type == comfy.model_base.ModelType.V_PREDICTION
    assert not torch.equal(ksampler(family, model), ksampler(family, family.base.model))


def test_an_absent_part_is_named_where_it_is_used(family: Any) -> None:
    import nodes

    with pytest.raises(ValueError, match=r"tiny_base\.safetensors holds appearnet, unet, but not the VAE"):
        nodes.VAEDecode().decode(family.base.vae, family.centre)
    with pytest.raises(ValueError, match="but not the AppearNet"):
        family.adapter.apply_appearance(family.base.model, family.image.appearnet, family.centre)
    assert not hasattr(family.base.vae, "get_ram_usage")


def test_latents_that_do_not_fit(family: Any) -> None:
    with pytest.raises(ValueError, match="VAE of the model's own family"):
        applied(types.SimpleNamespace(**{**vars(family), "centre": {"samples": torch.zeros(1, 4, 8, 8)}}))
    with pytest.raises(ValueError, match="NaN"):
        applied(
            types.SimpleNamespace(
                **{**vars(family), "centre": {"samples": torch.full((1, 8, 8, 8), torch.nan)}}
            )
        )
    with pytest.raises(ValueError, match="give both the same size"):
        ksampler(family, applied(family), {"samples": torch.zeros(2, 8, 16, 8)})
