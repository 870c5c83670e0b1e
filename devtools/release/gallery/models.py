"""Addresses of published weights, for the front end's dialog about missing models.

Most are taken from ComfyUI's own templates (package comfyui_workflow_templates). For Canny edges, the ControlNet is
another file of the repository named there. Motion weights stand where docs/models.md says. Each file keeps the last
part of its address as its name, since a browser saves it under that name. Files without one public address (Stable
Diffusion 2.1), the user's own, and those of this pack have none: the note in the workflow tells which file to choose.
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
    "diffusion_pytorch_model.fp16.safetensors": (
        "animatediff_models",
        f"{_HUB}/openmmlab/PIA-condition-adapter/resolve/main/diffusion_pytorch_model.fp16.safetensors",
    ),
    "mm_sd15_v3.safetensors": (
        "animatediff_models",
        f"{_HUB}/conrevo/AnimateDiff-A1111/resolve/main/motion_module/mm_sd15_v3.safetensors",
    ),
    "mm_sd15_v2.safetensors": (
        "animatediff_models",
        f"{_HUB}/conrevo/AnimateDiff-A1111/resolve/main/motion_module/mm_sd15_v2.safetensors",
    ),
    "mm_sd15_AnimateLCM.safetensors": (
        "animatediff_models",
        f"{_HUB}/conrevo/AnimateDiff-A1111/resolve/main/motion_module/mm_sd15_AnimateLCM.safetensors",
    ),
    "animatediff_lightning_4step_comfyui.safetensors": (
        "animatediff_models",
        f"{_HUB}/ByteDance/AnimateDiff-Lightning/resolve/main/animatediff_lightning_4step_comfyui.safetensors",
    ),
    "mm_sd15_v3_sparsectrl_rgb.safetensors": (
        "controlnet",
        f"{_HUB}/conrevo/AnimateDiff-A1111/resolve/main/control/mm_sd15_v3_sparsectrl_rgb.safetensors",
    ),
    **{
        name: ("checkpoints", f"{_HUB}/Kijai/DynamiCrafter_pruned/resolve/main/{name}")
        for name in (
            "dynamicrafter_512_fp16_pruned.safetensors",
            "dynamicrafter_1024_fp16_pruned.safetensors",
            "dynamicrafter_512_interp_fp16_pruned.safetensors",
            "tooncrafter_512_interp-pruned-fp16.safetensors",
        )
    },
    "CLIP-ViT-H-fp16.safetensors": (
        "clip_vision",
        f"{_HUB}/Kijai/CLIPVisionModelWithProjection_fp16/resolve/main/CLIP-ViT-H-fp16.safetensors",
    ),
    **{
        name: (
            folder,
            f"{_HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/{folder}/{name}",
        )
        for folder, name in (
            ("diffusion_models", "wan2.1_t2v_1.3B_fp16.safetensors"),
            ("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
            ("vae", "wan_2.1_vae.safetensors"),
        )
    },
    "mm_sd15_v3_adapter.safetensors": (
        "loras",
        f"{_HUB}/conrevo/AnimateDiff-A1111/resolve/main/lora/mm_sd15_v3_adapter.safetensors",
    ),
    "AnimateLCM_sd15_t2v_lora.safetensors": (
        "loras",
        f"{_HUB}/wangfuyun/AnimateLCM/resolve/main/AnimateLCM_sd15_t2v_lora.safetensors",
    ),
    **{
        f"mm_sd15_v2_lora_{movement}.safetensors": (
            "animatediff_motion_lora",
            f"{_HUB}/conrevo/AnimateDiff-A1111/resolve/main/lora/mm_sd15_v2_lora_{movement}.safetensors",
        )
        for movement in (
            "PanLeft",
            "PanRight",
            "RollingAnticlockwise",
            "RollingClockwise",
            "TiltDown",
            "TiltUp",
            "ZoomIn",
            "ZoomOut",
        )
    },
}
"""(Folder in `models`, address) by file name."""
SIZES = {
    "diffusion_pytorch_model.fp16.safetensors": "836 MB",
    "mm_sd15_v3.safetensors": "837 MB",
    "mm_sd15_v2.safetensors": "909 MB",
    "mm_sd15_AnimateLCM.safetensors": "907 MB",
    "animatediff_lightning_4step_comfyui.safetensors": "909 MB",
    "mm_sd15_v3_sparsectrl_rgb.safetensors": "994 MB",
    **{name: "3.1 GB" for name in PUBLISHED if "crafter_" in name},
    "CLIP-ViT-H-fp16.safetensors": "1.3 GB",
    "mm_sd15_v3_adapter.safetensors": "51 MB",
    "AnimateLCM_sd15_t2v_lora.safetensors": "135 MB",
    **{name: "39 MB" for name in PUBLISHED if name.startswith("mm_sd15_v2_lora_")},
}
"""Sizes that public listings of these addresses state, by file name."""


SHA256 = {
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors": "c3355d30191f1f066b26d93fba017ae9809dce6c627dda5f6a66eaa651204f68",
    "wan_2.1_vae.safetensors": "2fc39d31359a4b0a64f55876d8ff7fa8d780956ae2cb13463b0223e15148976b",
}
"""Hashes by file name, where ComfyUI's own templates state them (wan2.1_flf2v_720_f16.json)."""


def metadata(values: list[Any]) -> list[dict[str, str]]:
    """Return the `models` property of a node with these widget values."""
    named = [value for value in values if isinstance(value, str) and value in PUBLISHED]
    found = []
    for name in named:
        directory, url = PUBLISHED[name]
        known = {"hash": SHA256[name], "hash_type": "SHA256"} if name in SHA256 else {}
        found.append({"name": name, "url": url, **known, "directory": directory})
    return found
