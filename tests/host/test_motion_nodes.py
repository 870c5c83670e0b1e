"""MicroCinema Motion Loader in the real host: what it says of files that it cannot use, and settings on auto."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from devtools.check import tiny
from devtools.run.server import ComfyServer
from tests.host.gallery_files import FOUR_LEVELS, write_motion_files

Prompt = dict[str, dict[str, Any]]
V3, RGB = "mm_sd15_v3.safetensors", "mm_sd15_v3_sparsectrl_rgb.safetensors"
OWN = "of the motion file"


@pytest.fixture(scope="module")
def files(host: ComfyServer) -> Path:
    """Stable Diffusion 1.5's U-Net with all levels, motion files, and files of other kinds."""
    models = host.models_dir
    write_motion_files(models)
    image = models / "diffusion_models" / "sd15_unet.safetensors"
    image.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half() for key, value in tiny.unet_weights(FOUR_LEVELS).items()}, str(image))
    place, there = "down_blocks.0.motion_modules.0", "down_blocks.3.motion_modules.0"
    others = {
        "v1.safetensors": {
            f"{place}.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe": (
                1,
                24,
                4,
            ),
            f"{there}.temporal_transformer.norm.weight": (4,),
        },
        "sdxl.safetensors": {f"{place}.temporal_transformer.norm.weight": (4,)},
        "hotshot.safetensors": {"down_blocks.0.temporal_attentions.0.norm.weight": (4,)},
        "lora.safetensors": {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 4)},
        "motion_lora.safetensors": {f"{place}.attention_blocks.0.processor.to_q_lora.up.weight": (4, 4)},
        "sparse.safetensors": {"controlnet_cond_embedding.weight": (4, 5, 3, 3)},
    }
    for name, shapes in others.items():
        save_file(
            {key: torch.zeros(shape) for key, shape in shapes.items()},
            str(models / "animatediff_models" / name),
        )
    scribble = {"controlnet_cond_embedding.blocks.0.weight": torch.zeros(4, 4, 3, 3)}
    save_file(scribble, str(models / "controlnet" / "scribble.safetensors"))
    (models / "animatediff_models" / "renamed.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    return models


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def loading(motion: str = V3, appearance: str = OWN, **inputs: Any) -> Prompt:
    return {
        "image": node("UNETLoader", unet_name="sd15_unet.safetensors", weight_dtype="default"),
        "motion": node(
            "MicroCinemaMotionLoader",
            model=["image", 0],
            motion_file=motion,
            appearance_file=appearance,
            **inputs,
        ),
        "show": node("PreviewAny", source=["motion", 0]),
    }


@pytest.mark.parametrize(
    ("motion", "says"),
    [
        ("v1.safetensors", "AnimateDiff version 1: get version 3, mm_sd15_v3.safetensors"),
        ("sdxl.safetensors", "a motion module for SDXL: get mm_sd15_v3.safetensors"),
        ("hotshot.safetensors", "a Hotshot-XL motion module"),
        ("lora.safetensors", "a LoRA of the image model: load it with the stock Load LoRA node"),
        ("motion_lora.safetensors", "this is a motion LoRA"),
        ("sparse.safetensors", "this is SparseCtrl for pictures"),
        ("renamed.safetensors", "pickle"),
        ("v3_sd15_mm.ckpt", "a .ckpt file is a pickle.*get mm_sd15_v3.safetensors"),
        ("sub/mm_sd_v15_v2.ckpt", "a .ckpt file is a pickle.*get mm_sd15_v2.safetensors"),
        ("unheard_of.pth", "a .pth file is a pickle"),
        ("absent.safetensors", "no such file in .*animatediff_models"),
        ("../checkpoints/x.safetensors", "no such file"),
    ],
)
def test_files_of_other_kinds_say_what_they_are(
    host: ComfyServer, files: Path, motion: str, says: str
) -> None:
    import re

    said = host.run_expect_error(loading(motion))
    assert re.search(says, said) and said.count("Traceback") == 0, said


@pytest.mark.parametrize(
    ("appearance", "says"),
    [
        ("scribble.safetensors", "SparseCtrl for scribbles or pixels: get the one for pictures"),
        ("v3_sd15_sparsectrl_rgb.ckpt", f"pickle.*get {RGB}"),
        ("absent.safetensors", "no such file in .*controlnet"),
    ],
)
def test_appearance_files_of_other_kinds(host: ComfyServer, files: Path, appearance: str, says: str) -> None:
    import re

    said = host.run_expect_error(loading(V3, appearance))
    assert re.search(says, said), said


def test_a_motion_module_has_no_appearnet_of_its_own(host: ComfyServer, files: Path) -> None:
    prompt = loading()
    prompt["latent"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    prompt["apply"] = node(
        "MicroCinemaApplyAppearNet",
        model=["motion", 0],
        appearnet=["motion", 1],
        centre_frame=["latent", 0],
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    prompt["show"]["inputs"]["source"] = ["apply", 0]
    assert "choose a SparseCtrl file as appearance_file" in host.run_expect_error(prompt)
    prompt["motion"]["inputs"]["appearance_file"] = RGB
    host.run(prompt)


def test_a_name_that_stands_twice_shows_its_folder(comfy_in_process: Path, tmp_path: Path) -> None:
    import folder_paths

    from microcinema_core import adapter

    kept = dict(folder_paths.folder_names_and_paths)
    try:
        for key in ("first", "second"):
            (tmp_path / key / "inner").mkdir(parents=True)
            folder_paths.add_model_folder_path(key, str(tmp_path / key))
            for name in ("same.safetensors", "inner/same.safetensors", f"{key}.safetensors"):
                (tmp_path / key / name).touch()
        names = adapter.list_files("first", "second")
        assert sorted(names) == sorted(
            [
                "first.safetensors",
                "inner/same.safetensors",
                "same.safetensors",
                "second.safetensors",
                "second/inner/same.safetensors",
                "second/same.safetensors",
            ]
        )
        found = {name: adapter.find_file(name, "first", "second") for name in names}
        assert len(set(found.values())) == 6
        assert found["same.safetensors"] == tmp_path / "first" / "same.safetensors"
        assert found["second/inner/same.safetensors"] == tmp_path / "second" / "inner" / "same.safetensors"
        shutil.rmtree(tmp_path / "second")
        with pytest.raises(ValueError, match="no such file"):
            adapter.find_file("second/same.safetensors", "first", "second")
    finally:
        folder_paths.folder_names_and_paths.clear()
        folder_paths.folder_names_and_paths.update(kept)


def test_settings_on_auto_are_the_weights_own(family: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Old files recommend nothing, so auto is what the nodes had as defaults before."""
    from microcinema_core import adapter

    generator = torch.Generator().manual_seed(0)
    text = [[torch.randn(1, 77, 32, generator=generator), {}]]
    centre = {"samples": torch.randn(1, 8, 8, 8, generator=generator)}
    base = family.base

    def made(settings: tuple[int, float, str, str], **given: Any) -> Any:
        run = adapter.SamplerSettings(text, text, 5, *settings)
        return adapter.sample_video(base.model, base.appearnet, centre, run, **given)[0]["samples"]

    automatic = made((0, -1.0, "auto", "auto"))
    by_hand = made((20, 6.0, "euler", "normal"), frames=base.model.model.spec.frames, gamma=0.02)
    assert torch.equal(automatic, by_hand)
    with caplog.at_level(logging.WARNING):
        made((1, 1.0, "euler", "normal"), frames=3)
    assert f"recommends frames {base.model.model.spec.frames}; here, frames is 3" in caplog.text
