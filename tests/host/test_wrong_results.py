"""What once gave a wrong result without a word: now it is right, or a sentence says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.host.test_models_tsr import interpolated
from tests.host.tiny_family import FRAMES, applied, empty, ksampler, settings

FINISHED = 9
"""Frames that one round of TSR makes of three key frames."""


def test_no_round_of_tsr_draws_a_samplers_noise() -> None:
    from microcinema_core.diffusion.tsr import round_noise

    for seed in (0, 7, 2**64 - 1):
        stock = torch.randn(33, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        drawn = [round_noise(seed, round_, 33, (4, 8, 8)) for round_ in (0, 1)]
        for noise in drawn:
            correlation = torch.corrcoef(torch.stack([noise.flatten(), stock.flatten()]))[0, 1]
            assert abs(float(correlation)) < 0.05
        assert not torch.equal(*drawn)


def test_a_batch_of_centre_frames_is_one_for_each_frame_or_refused(family: Any) -> None:
    several = {"samples": torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(1))}
    apply = family.adapter.apply_appearance
    model = apply(family.base.model, family.base.appearnet, several)
    ksampler(family, model, empty(3))
    for frames in (6, 9):
        with pytest.raises(ValueError, match=f"holds 3 frames and the video {frames}: .* as a list"):
            ksampler(family, model, empty(frames))
    prior = family.adapter.override_prior(family.base.model, lambda_=0, gamma=0.1, centre_frame=several)
    with pytest.raises(ValueError, match="holds 3 frames and the video 9"):
        ksampler(family, prior, empty(9))


def texts(count: int) -> Any:
    return [[torch.randn(count, 77, 32, generator=torch.Generator().manual_seed(count)), {}]]


def masks(count: int) -> Any:
    text = texts(1)[0][0]
    mask = torch.rand(count, 8, 8, generator=torch.Generator().manual_seed(count))
    return [[text, {"mask": mask, "mask_strength": 1.0}], [-text, {}]]


def hints(count: int) -> Any:
    """A ControlNet whose hints are added to the middle block."""
    import comfy.controlnet

    class Hinted(comfy.controlnet.ControlBase):
        def copy(self) -> Any:
            copied = Hinted()
            self.copy_to(copied)
            return copied

        def get_control(self, x: Tensor, t: Tensor, cond: Any, batched: int, options: Any) -> Any:
            hint = self.cond_hint_original
            hint = hint.repeat(x.shape[0] // hint.shape[0], 1, 1, 1)
            return {"middle": [hint.to(x) * 3], "output": [], "input": []}

    control = Hinted()
    control.set_cond_hint(torch.randn(count, 64, 4, 4, generator=torch.Generator().manual_seed(count)))
    return [[texts(1)[0][0], {"control": control, "control_apply_to_uncond": False}]]


@pytest.mark.parametrize("make", [texts, masks, hints])
@pytest.mark.parametrize("rounds", [1, 2])
def test_tsr_gives_each_window_what_belongs_to_its_frames(
    family: Any, make: Callable[[int], Any], rounds: int
) -> None:
    """The result does not depend on the chunk, and a frame's own entry matters to it."""
    finished = 2 * 4**rounds + 1
    run = {"rounds": rounds, "positive": make(finished), "steps": 1, "cfg": 3.0}
    one, all_ = (interpolated(family, chunk=chunk, **run) for chunk in (1, 8))
    assert_close(one, all_, rtol=1e-4, atol=1e-4 * float(one.std()))
    other = make(finished)
    text, more = other[0]
    value = {"texts": text, "masks": more.get("mask"), "hints": text}[make.__name__]
    if make is hints:
        value = more["control"].cond_hint_original
    value[finished // 4] += 1.0  # a frame between the first two key frames
    changed = interpolated(family, rounds=rounds, positive=other, steps=1, cfg=3.0, chunk=8)
    differing = (changed - one).abs().amax((1, 2, 3)) > 1e-3
    assert bool(differing[1 : 4**rounds].any()) and not bool(differing[4**rounds :].any())


@pytest.mark.parametrize("make", [texts, masks, hints])
def test_tsr_refuses_another_number_of_them(family: Any, make: Callable[[int], Any]) -> None:
    with pytest.raises(ValueError, match=r"positive has 4 .*the finished video has 9 frames: give one"):
        interpolated(family, positive=make(4))


def test_tsr_leaves_context_windows_out(family: Any) -> None:
    run = {"rounds": 1, "lambda_": -1.0, "gamma": 0.02}
    made = family.adapter.interpolate_video(
        windowed(family.tsr.model), family.tsr.appearnet, family.keys, settings(family), **run
    )["samples"]
    assert torch.equal(made, interpolated(family))


def residual_model(family: Any, monkeypatch: pytest.MonkeyPatch, scale: float = 0.5) -> Any:
    inner = family.base.model.model
    monkeypatch.setattr(inner, "info", replace(inner.info, spec=replace(inner.info.spec, residual=scale)))
    return inner


def test_a_dropped_branch_of_a_residual_model_is_read_as_residuals(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dropped branch is the same model at strength 0 and lambda 0, which keeps z_c as well."""
    from microcinema_core.adapter.model import DROP

    residual_model(family, monkeypatch)
    without = [[family.positive[0][0], {DROP: True}]]
    none = [[family.negative[0][0], {DROP: True}]]
    dropped = ksampler(family, applied(family, gamma=0), positive=without, negative=none)
    expected = ksampler(family, applied(family, strength=0.0, lambda_=0, gamma=0))
    assert_close(dropped, expected)
    half = ksampler(family, applied(family, gamma=0), negative=none)
    assert bool(torch.isfinite(half).all()) and not torch.equal(half, dropped)


def test_a_residual_model_without_a_centre_frame_is_refused(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    residual_model(family, monkeypatch)
    with pytest.raises(ValueError, match=r"differences from a centre frame.*Apply AppearNet"):
        ksampler(family, family.base.model)


def test_the_sampler_keeps_what_an_earlier_node_set(family: Any) -> None:
    def sampled(model: Any, **changes: Any) -> Tensor:
        with torch.inference_mode():
            return family.adapter.sample_video(
                model, family.base.appearnet, family.centre, settings(family), frames=FRAMES, **changes
            )[0]["samples"]

    weak = applied(family, strength=0.3, end_percent=0.7, gamma=0.1)
    assert torch.equal(sampled(weak), ksampler(family, weak))
    assert torch.equal(
        sampled(weak, gamma=0.0), ksampler(family, applied(family, strength=0.3, end_percent=0.7, gamma=0))
    )
    prior = family.adapter.override_prior(weak, lambda_=0.2, gamma=0.3)
    assert torch.equal(sampled(prior), ksampler(family, prior))
    alone = family.adapter.override_prior(
        family.base.model, lambda_=0.2, gamma=0.3, centre_frame=family.centre
    )
    assert torch.equal(sampled(alone), ksampler(family, applied(family, lambda_=0.2, gamma=0.3)))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_another_compute_dtype_runs_with_an_appearnet(family: Any, dtype: str) -> None:
    from comfy_extras.nodes_model_advanced import ModelComputeDtype

    expected = ksampler(family, applied(family))
    (model,) = ModelComputeDtype().patch(family.base.model, dtype)
    changed = family.adapter.apply_appearance(model, family.base.appearnet, family.centre)
    made = ksampler(family, changed)
    assert float((made - expected).abs().max() / expected.abs().max()) < 0.1
    assert torch.equal(ksampler(family, applied(family)), expected), "the original MODEL is as it was"


def test_texts_of_another_models_clip_are_named(family: Any) -> None:
    foreign = [[torch.zeros(1, 77, 768), {}]]
    for positive, negative, name in (
        (foreign, family.negative, "positive"),
        (family.positive, foreign, "negative"),
    ):
        with pytest.raises(ValueError, match=f"{name} has texts of width 768, and tiny_base.* takes 32"):
            ksampler(family, applied(family), positive=positive, negative=negative)
    with pytest.raises(ValueError, match="positive has texts of width 768"):
        interpolated(family, positive=foreign)


def windowed(model: Any, length: int = 4) -> Any:
    """Return a clone with the stock node's context windows over the frames of a batch."""
    import inspect

    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    newer = set(inspect.signature(ContextWindowsManualNode.execute).parameters) & {"freenoise"}
    return ContextWindowsManualNode.execute(
        model, length, 1, "standard_static", 1, False, "pyramid", 0, **dict.fromkeys(newer, False)
    ).args[0]


def test_context_windows_get_their_own_frames_or_are_refused(family: Any) -> None:
    from microcinema_core.adapter.model import SLICES_CONDITIONS

    each = {"samples": torch.randn(7, 8, 8, 8, generator=torch.Generator().manual_seed(1))}
    model = family.adapter.apply_appearance(family.base.model, family.base.appearnet, each, gamma=0)
    runs = [
        (family.base.model, 3, "raises in the host"),
        (applied(family), 3, "raises in the host"),
        (model, 6, "takes the first frames"),
    ]
    for patched, steps, _ in runs:
        run = {"latent": empty(7), "steps": steps, "cfg": 1.0}
        if SLICES_CONDITIONS:
            assert bool(ksampler(family, windowed(patched), **run).isfinite().all())
        else:
            with pytest.raises(ValueError, match=r"do not work here for 7 frames.*MicroCinema Longer Video"):
                ksampler(family, windowed(patched), **run)
    if SLICES_CONDITIONS:
        short = {"samples": each["samples"][3:]}
        alone = family.adapter.apply_appearance(family.base.model, family.base.appearnet, short, gamma=0)
        seen: list[Tensor] = []
        net = family.base.appearnet.patcher.model
        with pytest.MonkeyPatch.context() as patch:
            features = net.features
            patch.setattr(net, "features", lambda z, *a, **k: (seen.append(z), features(z, *a, **k))[1])
            ksampler(family, windowed(model), latent=empty(7), steps=1, cfg=1.0)
            ksampler(family, alone, latent=empty(4), steps=1, cfg=1.0)
        assert len(seen) == 3, "two windows, then the second one's frames alone"
        assert torch.equal(seen[1], seen[2]) and not torch.equal(seen[0], seen[1])


def test_every_file_of_a_diffusers_folder_counts_when_it_is_written_again(
    family: Any, tmp_path: Path
) -> None:
    import os

    names = ("unet/first.safetensors", "unet/second.safetensors", "scheduler/scheduler_config.json")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"before")
    before = family.adapter.fingerprints(tmp_path)
    assert family.adapter.fingerprints(tmp_path) == before
    for name in names:
        times = (tmp_path / name).stat()
        (tmp_path / "new").write_bytes(b"behind")
        os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
        (tmp_path / "new").replace(tmp_path / name)
        after = family.adapter.fingerprints(tmp_path)
        assert after != before, name
        before = after


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["strength", "start_percent", "end_percent", "gamma", "lambda"])
def test_settings_that_are_no_numbers(family: Any, name: str, value: float) -> None:
    given: Any = {"lambda_" if name == "lambda" else name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}; expected a finite number"):
        applied(family, **given)


def test_a_guidance_that_is_no_number(family: Any) -> None:
    with pytest.raises(ValueError, match="cfg is nan; expected a finite number"):
        interpolated(family, cfg=float("nan"))


def test_the_largest_seed(family: Any) -> None:
    assert bool(interpolated(family, seed=2**64 - 1).isfinite().all())


def test_the_stock_sampler_refuses_texts_that_it_would_tile(family: Any) -> None:
    """Five texts on 3, 7 or 9 frames: the host repeats or cuts them without a word."""
    model = applied(family)
    for frames in (3, 7, 9):
        with pytest.raises(ValueError, match=f"positive has 5 texts, and the video has {frames} frames"):
            ksampler(family, model, empty(frames), positive=texts(5))
        with pytest.raises(ValueError, match=f"negative has 2 texts, and the video has {frames} frames"):
            ksampler(family, model, empty(frames), negative=texts(2))
    for right in (1, 3):
        assert bool(ksampler(family, model, empty(3), positive=texts(right)).isfinite().all())
    with pytest.raises(ValueError, match="positive has 2 masks, and the video has 3 frames"):
        ksampler(family, model, empty(3), positive=masks(2))
    pictures = ksampler(family, family.image.model, empty(4), positive=texts(2))
    assert bool(pictures.isfinite().all()), "pictures are no frames"


@pytest.mark.parametrize("more", [{}, {"mask": 1.0}])
def test_latents_that_come_out_not_finite_are_an_error(family: Any, more: dict[str, float]) -> None:
    """A huge text is finite itself; a NaN mask spoils only what it multiplies."""
    text = texts(1)
    text[0][0] *= 1.0 if more else 1e30
    text[0][1] |= {key: torch.full((1, 8, 8), torch.nan) for key in more}
    said = "the sampled latents hold NaN or infinite values: look at"
    run = settings(family, positive=text)
    with pytest.raises(ValueError, match=said), torch.inference_mode():
        family.adapter.sample_video(family.base.model, family.base.appearnet, family.centre, run)
    for rounds in (1, 2):
        with pytest.raises(ValueError, match=said):
            interpolated(family, positive=text, rounds=rounds, steps=1)


def test_a_centre_frame_of_one_latent_pixel_is_refused(family: Any) -> None:
    centre = {"samples": torch.ones(1, 8, 1, 1)}
    with pytest.raises(ValueError, match="centre_frame has latents of one pixel"), torch.inference_mode():
        family.adapter.sample_video(family.base.model, family.base.appearnet, centre, settings(family))


def test_a_model_of_another_role_is_refused_by_the_nodes_own_name(family: Any) -> None:
    from microcinema_core.adapter import Interpolator

    for more, name in (({}, "Interpolate Frames"), ({"node": "Long Video"}, "Long Video")):
        with pytest.raises(ValueError, match=f"{name} expected one of role 'tsr'"):
            Interpolator(family.base.model, family.base.appearnet, settings(family), rounds=1, **more)
