"""MicroCinema Crafter Loader and the stock CLIP vision, node by node as a graph runs them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from devtools.check import tiny
from devtools.check.crafter_files import CLIP_WIDTH, write_crafter
from devtools.run.server import ComfyServer
from tests.host.pack import imported, nodes_of
from tests.host.test_crafter import FRAMES, SMALL, picture, settings

VISION = {
    "hidden_size": CLIP_WIDTH,
    "num_attention_heads": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "num_channels": 3,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 8,
    "model_type": "clip_vision_model",
}
"""A small CLIP vision model with the width of ViT-H."""
INTERP = "dynamicrafter_512_interp_fp16_pruned.safetensors"
Nodes = dict[str, Any]


@pytest.fixture
def nodes(models_in_tmp_path: None) -> Iterator[Nodes]:
    """The pack's nodes by id, which find files in `tmp_path`."""
    with imported("a pack") as pack:
        yield nodes_of(pack)


@pytest.fixture
def vision(comfy_in_process: Path, tmp_path: Path) -> Any:
    """The host's CLIP vision, small and random."""
    import comfy.clip_vision

    path = tmp_path / "vision.json"
    path.write_text(json.dumps(VISION))
    clip = comfy.clip_vision.ClipVisionModel(str(path))
    clip.model.load_state_dict(tiny.random_weights(clip.model, 4))
    return clip


def encoded(vision: Any, count: int = 1) -> Any:
    """Return the stock CLIP Vision Encode's output for random pictures."""
    from nodes import CLIPVisionEncode

    image = torch.rand(count, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    return CLIPVisionEncode().encode(vision, image, "none")[0]


def inputs(**changes: Any) -> dict[str, Any]:
    """Return the inputs of a node that samples."""
    run = settings(**changes)
    names = ("positive", "negative", "seed", "steps", "cfg", "sampler_name", "scheduler")
    return {**{name: getattr(run, name) for name in names}, "lambda": -1.0, "gamma": -1.0}


def test_a_picture_moves(nodes: Nodes, vision: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_crafter(tmp_path / "dynamicrafter_512_fp16_pruned.safetensors", SMALL)
    with caplog.at_level(logging.INFO):
        loaded = nodes["MicroCinemaCrafterLoader"].execute(
            file="dynamicrafter_512_fp16_pruned.safetensors", use="auto", clip_vision=vision
        )
    assert "is DynamiCrafter 512. Licence of these weights: Apache-2.0" in caplog.text
    model, _, appearnet = loaded.args
    given = {"model": model, "appearnet": appearnet, "centre_frame": picture(3), "frames": 0}
    made, fps = (
        nodes["MicroCinemaSampler"].execute(**given, **inputs(), clip_vision_output=encoded(vision)).args
    )
    assert made["samples"].shape == (FRAMES, 4, 4, 4) and fps == 8.0
    held, _ = (
        nodes["MicroCinemaSampler"]
        .execute(
            **given, **inputs(), anchor="first", motion="small", hold=True, clip_vision_output=encoded(vision)
        )
        .args
    )
    assert torch.equal(held["samples"][0], picture(3)["samples"][0])
    with pytest.raises(ValueError, match="connect clip_vision_output"):
        nodes["MicroCinemaSampler"].execute(**given, **inputs())
    applied = nodes["MicroCinemaApplyAppearNet"].execute(
        model=model,
        appearnet=appearnet,
        centre_frame=picture(3),
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
        clip_vision_output=encoded(vision),
    )
    assert applied.args[0].model is model.model


def test_frames_between_pictures(nodes: Nodes, vision: Any, tmp_path: Path) -> None:
    write_crafter(tmp_path / INTERP, SMALL)
    model, _, appearnet = (
        nodes["MicroCinemaCrafterLoader"].execute(file=INTERP, use="auto", clip_vision=vision).args
    )
    made, fps = (
        nodes["MicroCinemaTSR"]
        .execute(
            key_frames=picture(5, 3),
            fps=2.0,
            model=model,
            appearnet=appearnet,
            rounds=1,
            **inputs(sampler_name="auto", scheduler="auto"),
            clip_vision_output=encoded(vision, 3),
        )
        .args
    )
    assert made["samples"].shape[0] == 31 and fps == 30.0
    assert torch.equal(made["samples"][::15], picture(5, 3)["samples"])


def test_another_clip_vision_is_named(nodes: Nodes, tmp_path: Path) -> None:
    import comfy.clip_vision

    output = comfy.clip_vision.Output()
    output["last_hidden_state"] = torch.zeros(1, 5, 1024)

    class Narrow:
        def encode_image(self, image: Any, crop: bool) -> Any:
            return output

    write_crafter(tmp_path / INTERP, SMALL)
    model, _, appearnet = (
        nodes["MicroCinemaCrafterLoader"]
        .execute(file=INTERP, use="base", clip_vision=Narrow(), resolution="512")
        .args
    )
    with pytest.raises(ValueError, match=r"1280 channels were expected: use CLIP-ViT-H"):
        nodes["MicroCinemaSampler"].execute(
            model=model,
            appearnet=appearnet,
            centre_frame=picture(3),
            frames=0,
            **inputs(),
            clip_vision_output=output,
        )


@pytest.fixture(scope="module")
def run_expecting(host: ComfyServer) -> Callable[[str, str], str]:
    """Return a function that runs the loader in a server, for a file and a use, and returns what it says."""
    folder = host.models_dir / "checkpoints"
    write_crafter(folder / "mine.safetensors", SMALL)
    (folder / "renamed.safetensors").write_bytes(b"PK\x03\x04 a pickle")

    def run(file: str, use: str) -> str:
        return host.run_expect_error(
            {
                "load": {"class_type": "MicroCinemaCrafterLoader", "inputs": {"file": file, "use": use}},
                "show": {"class_type": "PreviewAny", "inputs": {"source": ["load", 0]}},
            }
        )

    return run


@pytest.mark.parametrize(
    ("file", "use", "says"),
    [
        ("mine.safetensors", "auto", "set use to base"),
        ("mine.safetensors", "base", "set resolution"),
        ("renamed.safetensors", "auto", "pickle"),
        ("tooncrafter_512/model.ckpt", "auto", "get tooncrafter_512_interp-pruned-fp16.safetensors"),
        ("absent.safetensors", "auto", "no such file"),
    ],
)
def test_what_the_server_says(
    run_expecting: Callable[[str, str], str], file: str, use: str, says: str
) -> None:
    said = run_expecting(file, use)
    assert says in said and "Traceback" not in said
