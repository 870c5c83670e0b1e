"""The VAE and text encoder of a MicroCinema file as the host's own VAE and CLIP, for use with every stock node."""

from __future__ import annotations

from typing import Any

import torch

from ..files.checkpoint import Checkpoint, load_strict
from ..files.load_networks import load_vae
from .host import comfy, folder_paths
from .memory import HostVAE

PLACEHOLDER = {
    "params": {
        "ddconfig": {
            "double_z": True,
            "z_channels": 4,
            "resolution": 32,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
            "ch_mult": [1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "embed_dim": 4,
    }
}
"""The smallest autoencoder that the host builds; `build_vae` replaces it at once."""


def build_vae(checkpoint: Checkpoint) -> Any:
    """Build the host's VAE of a file.

    Raises:
        ValueError: no VAE in the file, or weights that do not fit its configuration.
    """
    stand_in = comfy.ldm.models.autoencoder.AutoencoderKL(**PLACEHOLDER["params"]).state_dict()
    dtype = comfy.model_management.vae_dtype(comfy.model_management.vae_device(), [torch.float32])
    vae = comfy.sd.VAE(sd=stand_in, config=PLACEHOLDER, dtype=dtype)
    loaded = load_vae(checkpoint, operations=comfy.ops.disable_weight_init, dtype=vae.vae_dtype)
    vae.first_stage_model = HostVAE(loaded).eval()
    vae.latent_channels = loaded.config.latent_channels
    vae.size = None
    vae.patcher = host_patcher(
        vae.first_stage_model,
        load_device=vae.device,
        offload_device=comfy.model_management.vae_offload_device(),
    )
    vae.model_size()
    return vae


def build_clip(checkpoint: Checkpoint) -> Any:
    """Build the host's CLIP of a file.

    Raises:
        ValueError: no text encoder in the file, or weights that do not fit its configuration.
    """
    config = checkpoint.config("text").host_config()
    state_dict = checkpoint.part("text")

    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            super().__init__(
                device=device,
                dtype=dtype,
                textmodel_json_config=dict(config),
                return_projected_pooled=False,
                model_options=model_options or {},
            )

    class Model(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            super().__init__(
                device=device, dtype=dtype, model_options=model_options or {}, clip_model=Encoder
            )

    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, Model)
    parameters = sum(tensor.numel() for tensor in state_dict.values())
    embeddings = folder_paths.get_folder_paths("embeddings")
    clip = comfy.sd.CLIP(target, embedding_directory=embeddings, parameters=parameters)
    load_strict(
        clip.cond_stage_model.clip_l.transformer, state_dict, f"the text encoder of {checkpoint.name}"
    )
    return clip


def host_patcher(module: torch.nn.Module, *, load_device: Any, offload_device: Any) -> Any:
    """Wrap a network in the host's ModelPatcher, or in the class that newer hosts choose for it at start-up."""
    remember_dtypes = getattr(comfy.model_management, "archive_model_dtypes", None)
    if remember_dtypes is not None:
        remember_dtypes(module)
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return kind(module, load_device=load_device, offload_device=offload_device)
