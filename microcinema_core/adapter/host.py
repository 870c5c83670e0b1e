"""All of ComfyUI that this pack touches; no other file of it imports the host.

`TOUCHED` lists it name by name. A host that lacks one of them is refused as the pack is loaded, so that a pack is never
half there; `OPTIONAL` names are used where a host has them.
"""

from __future__ import annotations

import sys
from typing import Any

import comfy.cli_args  # type: ignore[import-not-found]
import comfy.conds
import comfy.k_diffusion.sampling
import comfy.latent_formats
import comfy.ldm.models.autoencoder
import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.openaimodel
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.ops
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths  # type: ignore[import-not-found]
import latent_preview  # type: ignore[import-not-found]
from comfy_api.latest import ComfyExtension, InputImpl, Types, io, ui  # type: ignore[import-not-found]
from comfy_execution.utils import get_executing_context  # type: ignore[import-not-found]

TOUCHED = (
    "comfy.cli_args.args",
    "comfy.conds.CONDConstant",
    "comfy.conds.CONDNoiseShape",
    "comfy.conds.CONDRegular",
    "comfy.k_diffusion.sampling.BrownianTreeNoiseSampler",
    "comfy.latent_formats.LatentFormat",
    "comfy.ldm.models.autoencoder.AutoencoderKL",
    "comfy.ldm.modules.attention.optimized_attention",
    "comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel",
    "comfy.model_base.BaseModel",
    "comfy.model_base.ModelType",
    "comfy.model_management.get_free_memory",
    "comfy.model_management.get_torch_device",
    "comfy.model_management.intermediate_device",
    "comfy.model_management.is_device_cpu",
    "comfy.model_management.soft_empty_cache",
    "comfy.model_management.throw_exception_if_processing_interrupted",
    "comfy.model_management.unet_dtype",
    "comfy.model_management.unet_manual_cast",
    "comfy.model_management.unet_offload_device",
    "comfy.model_management.vae_device",
    "comfy.model_management.vae_dtype",
    "comfy.model_management.vae_offload_device",
    "comfy.model_patcher.ModelPatcher",
    "comfy.model_sampling.EPS",
    "comfy.model_sampling.ModelSamplingDiscrete",
    "comfy.model_sampling.V_PREDICTION",
    "comfy.model_sampling.reshape_sigma",
    "comfy.ops.disable_weight_init",
    "comfy.ops.pick_operations",
    "comfy.patcher_extension.CallbacksMP",
    "comfy.patcher_extension.WrapperExecutor",
    "comfy.patcher_extension.WrappersMP",
    "comfy.patcher_extension.get_all_wrappers",
    "comfy.sample.prepare_noise",
    "comfy.sample.sample",
    "comfy.sample.sample_custom",
    "comfy.samplers.KSampler",
    "comfy.samplers.sampler_object",
    "comfy.sd.CLIP",
    "comfy.sd.VAE",
    "comfy.sd1_clip.SD1ClipModel",
    "comfy.sd1_clip.SD1Tokenizer",
    "comfy.sd1_clip.SDClipModel",
    "comfy.supported_models.SD15",
    "comfy.supported_models.SD20",
    "comfy.supported_models_base.ClipTarget",
    "comfy.utils.DISABLE_MMAP",
    "comfy.utils.PROGRESS_BAR_ENABLED",
    "comfy.utils.ProgressBar",
    "folder_paths.add_model_folder_path",
    "folder_paths.get_filename_list",
    "folder_paths.get_folder_paths",
    "folder_paths.get_full_path",
    "folder_paths.get_output_directory",
    "folder_paths.get_save_image_path",
    "folder_paths.get_temp_directory",
    "folder_paths.models_dir",
    "latent_preview.get_previewer",
    "latent_preview.prepare_callback",
)
OPTIONAL = (
    "comfy.model_management.archive_model_dtypes",
    "comfy.model_management.intermediate_dtype",
    "comfy.model_patcher.CoreModelPatcher",
)

__all__ = [
    "OPTIONAL",
    "TOUCHED",
    "ComfyExtension",
    "InputImpl",
    "Types",
    "comfy",
    "folder_paths",
    "io",
    "latent_preview",
    "show_text",
    "ui",
]


def lacking(names: tuple[str, ...] = TOUCHED) -> list[str]:
    """Return those of the names that this host does not have."""
    roots: dict[str, Any] = {"comfy": comfy, "folder_paths": folder_paths, "latent_preview": latent_preview}

    def found(name: str) -> bool:
        first, *rest = name.split(".")
        value = roots[first]
        for part in rest:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True

    return [name for name in names if not found(name)]


def show_text(text: str) -> None:
    """Show a text in the node that runs, in the front end that started the run; without a server, do nothing."""
    running, server = get_executing_context(), getattr(sys.modules.get("server"), "PromptServer", None)
    if running is not None and (instance := getattr(server, "instance", None)) is not None:
        instance.send_progress_text(text, running.node_id, instance.client_id)


if _absent := lacking():
    raise ImportError(f"it lacks {', '.join(_absent)}")
