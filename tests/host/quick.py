"""Shipped workflows with settings that make them quick, and the clips that they then produce."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from devtools.run.edit import set_everywhere
from devtools.run.home import ROOT
from devtools.run.workflow import Prompt, read_prompt

WORKFLOWS = ROOT / "workflows"
CLIPS = {
    "10 Start here - picture to video (mini)": (129, 32.0, 128),
    "11 Text to video (mini)": (33, 8.0, 128),
    "12 Repainted picture to video (mini)": (33, 8.0, 128),
    "13 Longer video (mini)": (49, 8.0, 128),
    "14 Between two pictures (mini)": (17, 32.0, 128),
    "15 Upscaled video (mini)": (33, 8.0, 512),
    "16 Loop with a prompt for each part (mini)": (36, 8.0, 128),
    "20 Picture to video (PIA)": (3, 8.0, 64),
    "21 SDXL picture to video (PIA, SparseCtrl)": (11, 40.0, 64),
    "22 First and last frame (SparseCtrl)": (3, 8.0, 64),
    "23 Text to video (AnimateDiff)": (16, 8.0, 64),
    "24 LoRA and ControlNet (AnimateDiff)": (16, 8.0, 64),
    "25 SDXL picture to video (DynamiCrafter)": (3, 8.0, 64),
    "26 Interpolate drawings (ToonCrafter)": (16, 7.5, 64),
    "27 Text to video (VideoCrafter2, ZeroScope)": (16, 8.0, 64),
    "30 Your trained model (SD 2)": (9, 8.0, 64),
    "31 Before training (SD 1)": (3, 2.0, 64),
    "32 Before training (SD 2)": (3, 2.0, 64),
    "33 LoRA before training (SD 1)": (9, 2.0, 64),
    "34 ControlNet before training (SD 1)": (9, 8.0, 64),
    "40 Noise prior on SVD": (3, 6.0, 64),
    "41 Wan text to video with a centre frame": (33, 16.0, 64),
    "50 Evaluation with SDXL first (SD 2)": (3, 2.0, 64),
    "51 Evaluation with SD 2.1 first (SD 2)": (3, 2.0, 64),
}
"""Number of frames, frame rate and side in pixels of each clip."""


def graph_prompt(name: str, schemas: Mapping[str, Any]) -> Prompt:
    """Return the prompt of the shipped graph."""
    return read_prompt(WORKFLOWS / f"{name}.json", schemas)


def script(name: str) -> Prompt:
    """Return the prompt that is shipped in the API's format."""
    return dict(json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8")))


def quickened(prompt: Prompt, name: str) -> Prompt:
    """Reduce the prompt to two steps per stage, one round unless at 32 fps, and small clips of full-sized models."""
    set_everywhere(prompt, ("steps",), 2)
    if CLIPS[name][1] != 32.0:
        set_everywhere(prompt, ("rounds",), 1)
    if not name.endswith("(mini)"):
        set_everywhere(prompt, ("frames", "video_frames"), 3)
        sized = {key: node for key, node in prompt.items() if node["inputs"].get("width") != 0}
        set_everywhere(sized, ("width", "height"), 64)  # 0: the model's own
    return prompt


def changes(before: Prompt, after: Prompt) -> dict[str, dict[str, Any]]:
    """Return what `quickened` changed: the new values by node and input."""
    return {
        key: changed
        for key, node in after.items()
        if (
            changed := {
                name: value for name, value in node["inputs"].items() if value != before[key]["inputs"][name]
            }
        )
    }
