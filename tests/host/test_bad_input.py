"""Typical wrong inputs through the real host: each gives one sentence that tells the user what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from devtools.check import tiny
from devtools.run.server import ComfyServer

ATTENTION = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
Prompt = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def files(host: ComfyServer) -> Path:
    """The host's models/microcinema with the tiny family and one of each kind of wrong file."""
    folder = host.models_dir / "microcinema"
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_family(folder)
    save_file({ATTENTION: torch.zeros(4, 1024)}, folder / "sd21.safetensors")
    xl = {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(4, 4), ATTENTION: torch.zeros(4, 2048)}
    save_file(xl, folder / "sdxl.safetensors")
    torch.save({"state_dict": {}}, folder / "pickle.safetensors")
    (folder / "page.safetensors").write_text("<html>The file has moved.</html>")
    whole = (folder / "tiny_base.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    for other in ("checkpoints/ours", "animatediff_models/motion"):
        path = host.models_dir / f"{other}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole)
    return folder


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def loading(file: str, kind: str = "MicroCinemaCheckpointLoader", **inputs: Any) -> Prompt:
    return {"1": node(kind, file=file, **inputs), "2": node("PreviewAny", source=["1", 0])}


def video(**changes: Any) -> Prompt:
    """Text and a grey picture to a clip, with the tiny family."""
    prompt = {
        "image": node("MicroCinemaCheckpointLoader", file="tiny_image.safetensors"),
        "base": node("MicroCinemaCheckpointLoader", file="tiny_base.safetensors"),
        "tsr": node("MicroCinemaCheckpointLoader", file="tiny_tsr.safetensors"),
        "positive": node("CLIPTextEncode", clip=["image", 1], text="a horse"),
        "negative": node("CLIPTextEncode", clip=["image", 1], text=""),
        "picture": node("EmptyImage", width=64, height=64, batch_size=1, color=8421504),
        "centre": node("VAEEncode", pixels=["picture", 0], vae=["image", 2]),
        "sampler": node(
            "MicroCinemaSampler",
            **{
                "model": ["base", 0],
                "appearnet": ["base", 3],
                "centre_frame": ["centre", 0],
                "frames": 3,
                "lambda": -1.0,
                "gamma": 0.02,
            },
            **_stock(),
        ),
        "save": node("SaveLatent", samples=["sampler", 0], filename_prefix="bad_input"),
    }
    for name, inputs in changes.items():
        prompt[name]["inputs"] |= inputs
    return prompt


def slow_motion(**inputs: Any) -> Prompt:
    """The clip, interpolated once."""
    prompt = video()
    settings = {"lambda": -1.0, "gamma": 0.02, "rounds": 1, "model": ["tsr", 0], "appearnet": ["tsr", 3]}
    settings |= {"key_frames": ["sampler", 0], "fps": ["sampler", 1]}
    prompt["interpolation"] = node("MicroCinemaTSR", **(settings | _stock() | inputs))
    prompt["save"]["inputs"]["samples"] = ["interpolation", 0]
    return prompt


def _stock() -> dict[str, Any]:
    return {
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "seed": 1,
        "steps": 1,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
    }


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("sd21.safetensors", "Stable Diffusion 2.x checkpoint.*MicroCinema Inflate"),
        ("sdxl.safetensors", "Stable Diffusion XL"),
        ("pickle.safetensors", "pickle"),
        ("page.safetensors", "text file under another name"),
        ("cut.safetensors", "cut short"),
    ],
)
def test_wrong_files(host: ComfyServer, files: Path, file: str, words: str) -> None:
    import re

    said = host.run_expect_error(loading(file))
    assert file in said and re.search(words, said), said


def test_a_tsr_file_where_a_base_file_is_wanted(host: ComfyServer, files: Path) -> None:
    said = host.run_expect_error(loading("tiny_tsr.safetensors", role="base"))
    assert "'tsr'" in said and "'base'" in said
    wrong = video(sampler={"model": ["tsr", 0], "appearnet": ["tsr", 3]})
    assert "role is 'tsr'" in host.run_expect_error(wrong)
    assert "role is 'base'" in host.run_expect_error(slow_motion(model=["base", 0], appearnet=["base", 3]))


def test_a_microcinema_file_is_not_inflated(host: ComfyServer, files: Path) -> None:
    inputs = {"injection": "spade", "temporal_layout": "paper"}
    assert "MicroCinema file already" in host.run_expect_error(
        loading("ours.safetensors", "MicroCinemaInflate", **inputs)
    )


def test_parts_that_a_file_does_not_hold(host: ComfyServer, files: Path) -> None:
    assert "but not the VAE" in host.run_expect_error(video(centre={"vae": ["base", 2]}))
    assert "but not the text encoder" in host.run_expect_error(video(positive={"clip": ["base", 1]}))
    assert "but not the AppearNet" in host.run_expect_error(video(sampler={"appearnet": ["image", 3]}))
    assert "no appearnet in this file" in host.run_expect_error(
        loading("tiny_image.safetensors", "MicroCinemaAppearNetLoader")
    )


@pytest.mark.parametrize(
    ("frames", "says"), [(-1, "smaller than min"), (1, "frames is 1; expected at least 2")]
)
def test_too_few_frames(host: ComfyServer, files: Path, frames: int, says: str) -> None:
    assert says in host.run_expect_error(video(sampler={"frames": frames}))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (
            {"sampler_name": "res_2s"},
            "sampler_name is 'res_2s', which this ComfyUI does not have; choose auto, euler",
        ),
        ({"scheduler": "bong"}, "scheduler is 'bong', which this ComfyUI does not have; choose auto, "),
        ({"anchor": "middle"}, "anchor is 'middle'; choose centre, first, last"),
        ({"motion": "huge"}, "motion is 'huge'; choose auto, small, medium, large"),
    ],
)
def test_choices_that_are_not_in_the_list(
    host: ComfyServer, files: Path, inputs: dict[str, str], says: str
) -> None:
    said = host.run_expect_error(video(sampler=inputs))
    assert says in said or "not in list" in said.lower(), said


NODES_WITH_COMBOS = {
    "MicroCinemaApplyAppearNet",
    "MicroCinemaCentreFrame",
    "MicroCinemaCheckpointLoader",
    "MicroCinemaUNetLoader",
    "MicroCinemaAppearNetLoader",
    "MicroCinemaInflate",
    "MicroCinemaMotionLoader",
    "MicroCinemaSampler",
    "MicroCinemaTSR",
    "MicroCinemaPromptSchedule",
    "MicroCinemaInterpolateVideo",
}
"""Those of today; the test below finds them in the schemas, so that a new one is tried too."""
SOURCES: dict[str, Any] = {
    "MODEL": ["base", 0],
    "APPEARNET": ["base", 3],
    "CONDITIONING": ["positive", 0],
    "LATENT": ["centre", 0],
    "IMAGE": ["picture", 0],
    "VAE": ["image", 2],
    "CLIP": ["image", 1],
    "VIDEO": ["film", 0],
}
GIVEN: dict[str, dict[str, Any]] = {
    "MicroCinemaCrafterLoader": {"file": "ours.safetensors"},
    "MicroCinemaInflate": {"file": "ours.safetensors"},
    "MicroCinemaInterpolateVideo": {"model": ["tsr", 0], "appearnet": ["tsr", 3], "longer_side": 64},
    "MicroCinemaMotionLoader": {"motion_file": "motion.safetensors"},
    "MicroCinemaTSR": {"model": ["tsr", 0], "appearnet": ["tsr", 3], "key_frames": ["sampler", 0]},
}
"""Inputs of a node that the type alone does not tell."""


def alone(kind: str, schema: dict[str, Any], **changes: Any) -> Prompt:
    """Return a prompt with one node whose inputs have their defaults; sockets come from the tiny family."""
    inputs = {}
    for name, (form, *more) in schema["input"].get("required", {}).items():
        options = (more[0] if more else {}) | ({"options": form} if isinstance(form, list) else {})
        first = (options.get("options") or [None])[0]
        inputs[name] = SOURCES.get(form) if str(form) in SOURCES else options.get("default", first)
    files = {"file": "tiny_base.safetensors"} if "file" in inputs else {}
    prompt = video()
    prompt["node"] = node(kind, **{**inputs, **files, **GIVEN.get(kind, {}), **changes})
    prompt["show"] = node("PreviewAny", source=["node", 0])
    prompt["pictures"] = node("EmptyImage", width=64, height=64, batch_size=2, color=255)
    prompt["film"] = node("CreateVideo", images=["pictures", 0], fps=8.0)
    return prompt


def own_nodes(host: ComfyServer) -> dict[str, Any]:
    """Return the schemas of the pack's nodes by their ids, as the host serves them."""
    return {kind: schema for kind, schema in host.object_info().items() if kind.startswith("MicroCinema")}


def of_type(schema: dict[str, Any], wanted: str) -> list[str]:
    """Return the names of a node's inputs of a type; hosts serve a combo as "COMBO" or as the list itself."""
    inputs = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
    return [
        name
        for name, (form, *_) in inputs.items()
        if form == wanted or (wanted == "COMBO" and isinstance(form, list))
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such", "no_such"),
        ("../../../evil", "evil"),
        ("a\ud800", "ud800"),
        (None, "None"),
        (7, "7"),
        ({"__value__": ["a", "b"]}, "['a', 'b']"),
    ],
)
def test_every_combo_of_every_node_refuses_what_is_not_in_its_list(
    host: ComfyServer, files: Path, value: Any, words: str
) -> None:
    """One sentence names the value and the input, and the host goes on."""
    found = own_nodes(host)
    assert {kind for kind, schema in found.items() if of_type(schema, "COMBO")} >= NODES_WITH_COMBOS
    for kind, schema in found.items():
        for name in of_type(schema, "COMBO"):
            if value is None and name in schema["input"].get("optional", {}):
                continue  # nothing is given, and the node's default applies
            refused(host, alone(kind, schema, **{name: value}), name, words)
    host.run(loading("tiny_base.safetensors"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_every_number_of_every_node_is_finite(host: ComfyServer, files: Path, value: float) -> None:
    tried = 0
    for kind, schema in own_nodes(host).items():
        for name in of_type(schema, "FLOAT"):
            tried += 1
            refused(host, alone(kind, schema, **{name: value}), name, str(value))
    assert tried >= 16


def test_the_largest_seed_of_every_node(host: ComfyServer, files: Path) -> None:
    found = {kind: schema for kind, schema in own_nodes(host).items() if "seed" in of_type(schema, "INT")}
    assert set(found) >= {"MicroCinemaSampler", "MicroCinemaTSR"}
    quick = {"steps": 1, "cfg": 1.0}
    for kind, schema in found.items():
        host.run(alone(kind, schema, seed=2**64 - 1, **quick))
        refused(host, alone(kind, schema, seed=2**64, **quick), "seed", "bigger than max")


def refused(host: ComfyServer, prompt: Prompt, name: str, words: str) -> None:
    """Check that one sentence refuses a prompt, with the input's name in it."""
    said = host.run_expect_error(prompt)
    where = f"{prompt['node']['class_type']}.{name}: {said}"
    assert name in said and words in said and "Traceback" not in said, where
    assert len(said) < 2000 and "\n" not in said, where


def test_places_that_the_weights_do_not_take(host: ComfyServer, files: Path) -> None:
    assert "has no setting for the amount of motion" in host.run_expect_error(
        video(sampler={"motion": "large"})
    )
    assert "takes one picture" in host.run_expect_error(video(sampler={"last_frame": ["centre", 0]}))


def test_one_key_frame(host: ComfyServer, files: Path) -> None:
    assert "at least 2" in host.run_expect_error(slow_motion(key_frames=["centre", 0], fps=2.0))


def test_several_centre_frames(host: ComfyServer, files: Path) -> None:
    assert "one was expected" in host.run_expect_error(video(picture={"batch_size": 2}))


def test_sizes_that_do_not_divide_are_made(host: ComfyServer, files: Path) -> None:
    host.run(video(picture={"width": 72, "height": 56}))


def test_an_empty_prompt_and_no_guidance(host: ComfyServer, files: Path) -> None:
    host.run(video(positive={"text": ""}))


def test_another_familys_latents(host: ComfyServer, files: Path) -> None:
    prompt = video(sampler={"centre_frame": ["wrong", 0]})
    prompt["wrong"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    assert "VAE of the model's own family" in host.run_expect_error(prompt)


def test_the_whole_way_and_its_frame_rate(host: ComfyServer, files: Path) -> None:
    prompt = slow_motion(rounds=2)
    prompt["rate"] = node("PreviewAny", source=["interpolation", 1])
    assert host.run(prompt)["rate"]["text"] == ["32.0"]


@pytest.mark.parametrize(
    "name",
    [
        "a\ud800.safetensors",
        "\x00",
        "",
        "../../../evil",
        "..\\..\\evil",
        "/etc/passwd",
        "C:\\evil",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize("kind", ["MicroCinemaInflate", "MicroCinemaCheckpointLoader"])
def test_names_of_no_file_leave_the_host_alive(host: ComfyServer, files: Path, kind: str, name: str) -> None:
    outside = host.models_dir.parent / "evil"
    (outside / "unet").mkdir(parents=True, exist_ok=True)
    (outside / "model_index.json").write_text("{}")
    more = {"injection": "spade", "temporal_layout": "paper"} if kind == "MicroCinemaInflate" else {}
    said = host.run_expect_error(loading(name, kind, **more))
    assert "no such file" in said or "is no file name" in said or "not in list" in said.lower(), said
    host.run(loading("tiny_base.safetensors"))


def test_a_file_that_is_overwritten_while_it_is_in_use(host: ComfyServer, files: Path) -> None:
    """The run that uses it goes on, and the next one loads what is there now."""
    import shutil

    copy = files / "used.safetensors"
    shutil.copyfile(files / "tiny_base.safetensors", copy)
    prompt = video(base={"file": copy.name})
    host.run(prompt)
    with copy.open("r+b") as file:
        file.truncate(1000)
    prompt["sampler"]["inputs"]["seed"] = 99
    assert "cut short" in host.run_expect_error(prompt)
    shutil.copyfile(files / "tiny_base.safetensors", copy)
    host.run(prompt)


@pytest.mark.parametrize("name", ["lambda", "gamma", "cfg"])
def test_a_setting_that_is_no_number(host: ComfyServer, files: Path, name: str) -> None:
    said = host.run_expect_error(video(sampler={name: float("nan")}))
    assert "expected a finite number" in said and name in said, said
