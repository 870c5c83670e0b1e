"""Addresses of published weights, for the front end's dialog about missing models.

They are taken from ComfyUI's own templates (package comfyui_workflow_templates). For Canny edges, the ControlNet is
another file of the repository named there. Files without one public address (Stable Diffusion 2.1), the user's own, and
those of this pack have none: the note in the workflow tells which file to choose.
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
"""(Folder in `models`, address) by file name."""


def metadata(values: list[Any]) -> list[dict[str, str]]:
    """Return the `models` property of a node with these widget values."""
    named = [value for value in values if isinstance(value, str) and value in PUBLISHED]
    return [{"name": name, "url": PUBLISHED[name][1], "directory": PUBLISHED[name][0]} for name in named]
