"""The contact sheet over gammas: one row for each, drawn from the videos of a running ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from devtools.run.gammas import main, motion, spread
from devtools.run.home import Problem
from devtools.run.server import ComfyServer

FRAMES = 3


def prompt() -> dict:
    """Return a graph of the shipped base model: a red picture, three frames, one step."""
    video = {
        "frames": FRAMES, "seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "normal",
        "lambda": -1.0, "gamma": 0.02,
    }  # fmt: skip
    loaders = {
        str(number): {
            "class_type": "MicroCinemaCheckpointLoader",
            "inputs": {"file": f"mini_{role}.safetensors", "role": role},
        }
        for number, role in enumerate(("image", "base"))
    }
    return {
        **loaders,
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a ball moves left", "clip": ["0", 1]}},
        "3": {"class_type": "EmptyImage", "inputs": {"width": 128, "height": 128, "batch_size": 1, "color": 8388608}},
        "4": {
            "class_type": "MicroCinemaCentreFrame",
            "inputs": {"image": ["3", 0], "vae": ["0", 2], "width": 0, "height": 0, "fit": "crop"},
        },
        "5": {
            "class_type": "MicroCinemaSampler",
            "inputs": {
                "model": ["1", 0], "appearnet": ["1", 3], "positive": ["2", 0], "negative": ["2", 0],
                "centre_frame": ["4", 0], **video,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["0", 2]}},
        "7": {"class_type": "CreateVideo", "inputs": {"images": ["6", 0], "fps": 2.0}},
        "8": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["7", 0], "filename_prefix": "gamma", "format": "auto", "codec": "auto"},
        },
    }  # fmt: skip


def test_one_row_for_each_gamma(
    host: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow, out = tmp_path / "graph.json", tmp_path / "new" / "sheet.png"
    workflow.write_text(json.dumps(prompt()), encoding="utf-8")
    main([str(workflow), "--url", host.url, "--gamma", "0", "0.5", "--frames", "2", "--out", str(out)])
    rows = np.asarray(Image.open(out).convert("RGB")).astype(int)
    upper, lower = np.split(rows[:, 72:], 2)
    assert np.abs(upper - lower).mean() > 1, "each row is a run of its own gamma"
    assert "gamma 0.5: motion" in "".join(capsys.readouterr())


def test_a_workflow_without_gamma_and_a_gamma_out_of_range(host: ComfyServer, tmp_path: Path) -> None:
    workflow = tmp_path / "graph.json"
    graph = prompt()
    del graph["5"]["inputs"]["gamma"]
    workflow.write_text(json.dumps(graph), encoding="utf-8")
    with pytest.raises(Problem, match="add MicroCinema Noise Prior"):
        main([str(workflow), "--url", host.url])
    with pytest.raises(Problem, match="--gamma is 2"):
        main([str(workflow), "--url", host.url, "--gamma", "2"])


def test_no_comfyui_at_the_address(tmp_path: Path) -> None:
    workflow = tmp_path / "graph.json"
    workflow.write_text(json.dumps({"nodes": []}), encoding="utf-8")
    with pytest.raises(Problem, match=r"does not respond at http://127\.0\.0\.1:9"):
        main([str(workflow), "--url", "http://127.0.0.1:9"])


def test_motion_is_the_mean_difference_of_neighbours() -> None:
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1] = 51
    assert motion(frames) == pytest.approx(0.2)
    assert motion(frames[:1]) == 0.0
    assert spread(np.arange(9), 3).tolist() == [0, 4, 8]
