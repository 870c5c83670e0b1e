"""The mini family's VAE and text encoder as the host's own VAE and CLIP, so that every stock node takes
them.
"""

from __future__ import annotations

from typing import Any

import torch

from ..files.checkpoint import Checkpoint, load_strict
from ..networks.text import TextConfig
from ..vae_config import VAEConfig
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
"""The smallest autoencoder that the host builds; ours takes its place at once."""


def build_vae(checkpoint: Checkpoint) -> Any:
    """Return the VAE socket of a file; `ValueError` if it holds none or another."""
    state_dict = checkpoint.part("vae")
    config = VAEConfig.from_dict(checkpoint.configs["vae"])
    stand_in = comfy.ldm.models.autoencoder.AutoencoderKL(**PLACEHOLDER["params"]).state_dict()
    dtype = comfy.model_management.vae_dtype(comfy.model_management.vae_device(), [torch.float32])
    vae = comfy.sd.VAE(sd=stand_in, config=PLACEHOLDER, dtype=dtype)
    net = HostVAE(config, operations=comfy.ops.disable_weight_init, dtype=vae.vae_dtype)
    load_strict(net, state_dict, f"the VAE of {checkpoint.name}")
    vae.first_stage_model = net.requires_grad_(False).eval()
    vae.latent_channels = config.latent_channels
    vae.size = None
    vae.patcher = host_patcher(
        net, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    vae.model_size()
    return vae


def build_clip(checkpoint: Checkpoint) -> Any:
    """Return the CLIP socket of a file; `ValueError` if it holds none or another."""
    config = TextConfig.from_dict(checkpoint.configs["text"]).host_config()
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
    """Put a network into the host's hands, by the class that the newer host rebinds at start-up."""
    remember_dtypes = getattr(comfy.model_management, "archive_model_dtypes", None)
    if remember_dtypes is not None:
        remember_dtypes(module)
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return kind(module, load_device=load_device, offload_device=offload_device)
