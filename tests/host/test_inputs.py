"""What the host hands over unchecked, the nodes check: what a link brings, and what a script puts in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devtools.run.client import HostError
from devtools.run.server import ComfyServer
from tests.host.test_bad_input import files, loading, node, slow_motion, video  # noqa: F401  (a fixture)

UNLISTED = "Value not in list"
"""What newer hosts say themselves of a choice that no list has; 0.3.75 leaves that to the nodes."""


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model", None, "model is None; expected a MODEL: connect one"),
        ("model", "text", "model is 'text'; expected a MODEL: connect one"),
        ("appearnet", 3, "appearnet is 3; expected an APPEARNET: connect one"),
        ("centre_frame", {}, "centre_frame is {}; expected a LATENT: connect one"),
        ("centre_frame", {"samples": 3}, "centre_frame is {'samples': 3}; expected a LATENT: connect one"),
        ("positive", [], "positive is [];"),
        (
            "negative",
            {"text": ""},
            "negative is {'text': ''}; expected a CONDITIONING with at least one text",
        ),
        ("last_frame", "picture.png", "last_frame is 'picture.png'; expected a LATENT: connect one"),
    ],
)
def test_a_value_in_place_of_a_link(
    host: ComfyServer,
    files: Path,  # noqa: F811
    name: str,
    value: Any,
    words: str,
) -> None:
    said = host.run_expect_error(video(sampler={name: value}))
    assert words in said or "Bad linked input" in said, said


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cfg", 1e9, "cfg is 1000000000.0; expected a finite number from -1 to 100"),
        ("lambda", -7.0, "lambda is -7.0; expected a finite number from -1 to 1"),
        ("gamma", float("nan"), "gamma is nan; expected a finite number"),
    ],
)
def test_a_number_that_a_link_brings(
    host: ComfyServer,
    files: Path,  # noqa: F811
    name: str,
    value: float,
    words: str,
) -> None:
    prompt = video(sampler={name: ["number", 0]})
    prompt["number"] = node("PrimitiveFloat", value=value)
    assert words in host.run_expect_error(prompt)


@pytest.mark.parametrize(("name", "value"), [("frames", 1025), ("steps", -3), ("seed", -1)])
def test_a_whole_number_that_a_link_brings(
    host: ComfyServer,
    files: Path,  # noqa: F811
    name: str,
    value: int,
) -> None:
    prompt = video(sampler={name: ["number", 0]})
    prompt["number"] = node("PrimitiveInt", value=value)
    assert f"{name} is {value}; expected a whole number from" in host.run_expect_error(prompt)


def test_a_whole_float_is_a_whole_number(host: ComfyServer, files: Path) -> None:  # noqa: F811
    prompt = slow_motion(rounds=1.0, steps="1")
    host.run(prompt)


def test_an_input_that_is_left_out(host: ComfyServer, files: Path) -> None:  # noqa: F811
    prompt = video()
    del prompt["sampler"]["inputs"]["model"]
    assert "Required input is missing (model)" in host.run_expect_error(prompt)
    prompt = {
        "motion": node("MicroCinemaMotionLoader", model=["base", 0], appearance_file="of the motion file")
    }
    prompt["base"] = loading("tiny_base.safetensors")["1"]
    prompt["show"] = node("PreviewAny", source=["motion", 0])
    assert "Required input is missing (motion_file)" in host.run_expect_error(prompt)


def test_a_name_longer_than_any_path(host: ComfyServer, files: Path) -> None:  # noqa: F811
    said = host.run_expect_error(loading("x" * 100_000))
    assert UNLISTED in said or ("is no file name" in said and len(said) < 1000)


def test_latents_far_beyond_those_of_a_picture(host: ComfyServer, files: Path) -> None:  # noqa: F811
    prompt = video(sampler={"centre_frame": ["louder", 0]})
    prompt["number"] = node("PrimitiveFloat", value=1e9)
    prompt["louder"] = node("LatentMultiply", samples=["centre", 0], multiplier=["number", 0])
    assert "centre_frame holds values of up to" in host.run_expect_error(prompt)


def test_masks_that_do_not_fit_the_frames(host: ComfyServer, files: Path) -> None:  # noqa: F811
    prompt = video(sampler={"positive": ["masked", 0]})
    prompt["mask"] = node("SolidMask", value=1.0, width=64, height=64)
    prompt["masks"] = node("RepeatImageBatch", image=["as_image", 0], amount=2)
    prompt["as_image"] = node("MaskToImage", mask=["mask", 0])
    prompt["as_mask"] = node("ImageToMask", image=["masks", 0], channel="red")
    prompt["masked"] = node(
        "ConditioningSetMask",
        conditioning=["positive", 0],
        mask=["as_mask", 0],
        strength=1.0,
        set_cond_area="default",
    )
    said = host.run_expect_error(prompt)
    assert "positive has 2 masks, and the video has 3 frames" in said
    prompt["masks"]["inputs"]["amount"] = 3
    host.run(prompt)


def test_none_for_an_optional_input_is_its_default(host: ComfyServer, files: Path) -> None:  # noqa: F811
    try:
        host.run(video(sampler={"anchor": None, "motion": None, "last_frame": None}))
    except HostError as error:
        assert str(error).count(UNLISTED) == 2 and "last_frame" not in str(error)


def test_a_scheduler_without_noise_levels_for_so_few_steps(host: ComfyServer, files: Path) -> None:  # noqa: F811
    said = host.run_expect_error(video(sampler={"scheduler": "kl_optimal", "steps": 1}))
    assert "the scheduler kl_optimal has no noise levels for 1 steps" in said
    said = host.run_expect_error(slow_motion(scheduler="kl_optimal", steps=1))
    assert "the scheduler kl_optimal has no noise levels for 1 steps" in said
    host.run(video(sampler={"scheduler": "kl_optimal", "steps": 3}))
