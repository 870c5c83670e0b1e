"""Where the published weights are that shipped workflows name, for the front end's dialog on missing models.

The addresses are those in ComfyUI's own templates (package comfyui_workflow_templates); those name another ControlNet
of the repository that has the one for Canny edges. Files that nobody publishes at one place any more (Stable Diffusion
2.1), and those that users bring or this pack ships, have none: the note in the workflow says what to choose.
"""

from __future__ import annotations

from typing import Any

_HUB = "https://huggingface.co"
PUBLISHED: dict[str, tuple[str, str]] = {
    "sd_xl_base_1.0.safetensors": (
        "checkpoints",
        f"{_HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    ),
    "v1-5-pruned-emaonly-fp16.safetensors": (
        "checkpoints",
        f"{_HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    ),
    "svd.safetensors": (
        "checkpoints",
        f"{_HUB}/stabilityai/stable-video-diffusion-img2vid/resolve/main/svd.safetensors",
    ),
    "control_v11p_sd15_canny_fp16.safetensors": (
        "controlnet",
        f"{_HUB}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
        "control_v11p_sd15_canny_fp16.safetensors",
    ),
    "MoXinV1.safetensors": (
        "loras",
        "https://civitai.com/api/download/models/14856?type=Model&format=SafeTensor&size=full&fp=fp16",
    ),
    "RealESRGAN_x4plus.safetensors": (
        "upscale_models",
        f"{_HUB}/Comfy-Org/Real-ESRGAN_repackaged/resolve/main/RealESRGAN_x4plus.safetensors",
    ),
}
"""Folder under `models` and address, by file name."""


def metadata(values: list[Any]) -> list[dict[str, str]]:
    """Return the `models` property of a node whose widgets hold these values."""
    named = [value for value in values if isinstance(value, str) and value in PUBLISHED]
    return [{"name": name, "url": PUBLISHED[name][1], "directory": PUBLISHED[name][0]} for name in named]
