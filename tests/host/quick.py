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
    "image_to_video_mini": (129, 32.0, 128),
    "img2img_centre_frame_mini": (33, 8.0, 128),
    "interpolate_any_frames": (17, 32.0, 128),
    "long_video_mini": (65, 8.0, 128),
    "sd15_controlnet_motion": (9, 8.0, 64),
    "sd15_inflated_image_to_video": (3, 2.0, 64),
    "sd15_lora": (9, 2.0, 64),
    "sd21_inflated_image_to_video": (3, 2.0, 64),
    "sd21_trained_image_to_video": (9, 8.0, 64),
    "sdxl_to_video": (11, 40.0, 64),
    "picture_to_video": (3, 8.0, 64),
    "first_and_last_frame": (3, 8.0, 64),
    "text_to_video_animatediff": (16, 8.0, 64),
    "sd15_lora_controlnet_to_video": (16, 8.0, 64),
    "svd_noise_prior": (3, 6.0, 64),
    "text_to_video_mini": (129, 32.0, 128),
    "upscaled_video_mini": (33, 8.0, 512),
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
    if not name.endswith("_mini") and name != "interpolate_any_frames":
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
