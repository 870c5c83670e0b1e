"""The noise prior's gamma on the host's own video models, whose latents are `b c f h w`: every family once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.host.video_families import FAMILIES, WITH_SOUND, Family, model_of, text

FRAMES, SIDE, STEPS, GAMMA = 3, 8, 2, 0.25
WAN, _, LTX, *_ = FAMILIES

pytestmark = pytest.mark.usefixtures("comfy_in_process")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def picture(family: Family, *, frames: int = 1, seed: int = 5) -> Tensor:
    """The latents of a picture, or of a video of several, as a VAE of video models returns them."""
    return random(1, family.channels, frames, SIDE, SIDE, seed=seed)


def prior(model: Any, centre: Tensor, gamma: float = GAMMA) -> Any:
    from microcinema_core.adapter import override_prior

    return override_prior(model, lambda_=-1.0, gamma=gamma, centre_frame={"samples": centre})


def start_of(family: Family, model: Any, noise: Any, mask: Tensor | None = None, empty: Any = None) -> Tensor:
    """Return what the sampler is given, and stop there."""
    import comfy.sample
    import comfy.samplers

    seen: list[Tensor] = []

    def recorded(_model: Any, x: Tensor, _sigmas: Tensor, **_: Any) -> Tensor:
        seen.append(x.clone())
        return x

    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
    with torch.inference_mode():
        comfy.sample.sample_custom(
            model,
            noise,
            2.0,
            comfy.samplers.KSAMPLER(recorded),
            sigmas,
            text(family, 1),
            text(family, 2),
            torch.zeros_like(noise) if empty is None else empty,
            noise_mask=mask,
            disable_pbar=True,
        )
    return seen[0]


def noise_of(family: Family, *, videos: int = 1) -> Tensor:
    return random(videos, family.channels, FRAMES, SIDE, SIDE, seed=7)


def scaled(model: Any, noise: Tensor) -> Tensor:
    """What the family itself makes of unit noise at the start of a full run."""
    sampling = model.get_model_object("model_sampling")
    sigma = torch.as_tensor(sampling.sigma_max, dtype=torch.float32).reshape(1)
    return sampling.noise_scaling(sigma, noise.clone(), torch.zeros_like(noise), max_denoise=True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_frame_starts_from_its_noise_and_gamma_times_the_picture(family: Family) -> None:
    model = model_of(family)
    centre, noise = picture(family), noise_of(family, videos=2)
    into = model.model.process_latent_in(centre)
    by_hand = noise.clone()
    for video in range(2):
        for frame in range(FRAMES):
            by_hand[video, :, frame] += GAMMA * into[0, :, 0]
    started = start_of(family, prior(model, centre), noise)
    assert_close(started, scaled(model, by_hand), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(started, start_of(family, model, noise))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_run_is_finite_and_gamma_0_is_the_same_to_the_bit(family: Family) -> None:
    model = model_of(family)
    plain = sampled(family, model)
    assert torch.equal(sampled(family, prior(model, picture(family), 0.0)), plain)
    some = sampled(family, prior(model, picture(family)))
    assert some.isfinite().all()
    assert not torch.equal(some, plain)


def sampled(family: Family, model: Any) -> Tensor:
    import nodes

    with torch.inference_mode():
        return nodes.KSampler().sample(
            model, seed=7, steps=STEPS, cfg=2.0, sampler_name="euler", scheduler="simple",
            positive=text(family, 1), negative=text(family, 2),
            latent_image={"samples": torch.zeros(1, family.channels, FRAMES, SIDE, SIDE)},
        )[0]["samples"]  # fmt: skip


def test_frames_that_a_mask_keeps_get_no_share() -> None:
    model, noise, centre = model_of(WAN), noise_of(WAN), picture(WAN)
    mask = torch.ones(1, 1, FRAMES, SIDE, SIDE)
    mask[:, :, 0] = 0.0
    started = start_of(WAN, prior(model, centre), noise, mask)
    assert_close(started[:, :, 0], noise[:, :, 0], rtol=1e-5, atol=1e-5)
    share = GAMMA * model.model.process_latent_in(centre)
    assert_close(started[:, :, 1:], noise[:, :, 1:] + share, rtol=1e-5, atol=1e-5)


def test_one_picture_for_each_frame_and_a_picture_of_four_dimensions() -> None:
    model, noise = model_of(WAN), noise_of(WAN)
    video = picture(WAN, frames=FRAMES)
    started = start_of(WAN, prior(model, video), noise)
    assert_close(started, noise + GAMMA * model.model.process_latent_in(video), rtol=1e-5, atol=1e-5)
    flat = picture(WAN)
    assert torch.equal(
        start_of(WAN, prior(model, flat[:, :, 0]), noise), start_of(WAN, prior(model, flat), noise)
    )


@pytest.mark.parametrize(
    ("centre", "message"),
    [
        (torch.ones(2, 16, 1, SIDE, SIDE), r"shape \(2, 16, 1, 8, 8\), \(1, 16, frames, height, width\)"),
        (torch.ones(1, 4, 1, SIDE, SIDE), "encode the picture with the VAE"),
        (torch.full((1, 16, 1, SIDE, SIDE), float("nan")), "NaN"),
    ],
)
def test_a_centre_frame_of_another_kind_is_refused_at_the_node(centre: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prior(model_of(WAN), centre)


@pytest.mark.parametrize(
    ("centre", "message"),
    [
        (torch.ones(1, 16, 2, SIDE, SIDE), "holds 2 frames and the video 3"),
        (torch.ones(1, 16, 1, SIDE, SIDE * 2), "give both the same size"),
    ],
)
def test_a_centre_frame_that_does_not_fit_is_refused_before_the_run(centre: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start_of(WAN, prior(model_of(WAN), centre), noise_of(WAN))


def test_a_picture_of_a_video_model_is_refused_by_stable_diffusion(family: Any) -> None:
    with pytest.raises(ValueError, match=r"\(frames, 8, height, width\) was expected"):
        prior(family.base.model, torch.ones(1, 8, 1, SIDE, SIDE))


def test_latents_packed_with_sound_are_refused_in_a_sentence(comfy_in_process: Path) -> None:
    import comfy.nested_tensor

    sound = random(1, 4, 10, 1, seed=1)
    noise = comfy.nested_tensor.NestedTensor([noise_of(LTX), sound])
    empty = comfy.nested_tensor.NestedTensor([torch.zeros_like(noise_of(LTX)), torch.zeros_like(sound)])
    with pytest.raises(ValueError, match="models that make sound and video at once"):
        start_of(LTX, prior(model_of(LTX), picture(LTX)), noise, empty=empty)


def test_a_family_whose_latents_always_hold_sound_is_refused_at_the_node() -> None:
    model = model_of(WITH_SOUND)
    with pytest.raises(
        ValueError, match=r"^the noise prior needs frames of pictures; models that make sound and"
    ):
        prior(model, picture(WITH_SOUND))
