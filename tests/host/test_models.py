"""A MODEL with appearance and noise prior in the host's own nodes, in process, with small random weights."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from devtools.check import tiny
from tests.host.tiny_family import FRAMES, STEPS, applied, empty, ksampler, settings


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


def test_gamma_only_from_full_noise_on_an_empty_latent(family: Any) -> None:
    low, high = applied(family, gamma=0.0), applied(family, gamma=0.5)
    full = {"samples": torch.ones(FRAMES, 8, 8, 8)}
    assert not torch.equal(ksampler(family, low), ksampler(family, high))
    assert torch.equal(ksampler(family, low, denoise=0.5), ksampler(family, high, denoise=0.5))
    assert torch.equal(ksampler(family, low, full), ksampler(family, high, full))


def test_gamma_on_another_familys_model(family: Any) -> None:
    """The wrapper uses only the centre frame of our models; a lambda raises an error."""
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


def test_weights_that_know_the_picture_at_the_centre_take_no_other_place(family: Any) -> None:
    for anchor in ("first", "last"):
        with pytest.raises(ValueError, match="trained with the picture at the centre"):
            applied(family, anchor=anchor)
    with pytest.raises(ValueError, match="has no setting for the amount of motion"):
        applied(family, motion="small")
