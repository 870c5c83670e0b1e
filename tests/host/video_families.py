"""Tiny random MODELs of the host's own families of video models, for what must work with any of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import pytest
import torch
from torch import Tensor

WIDTH = 32
"""Width of the text that every one of these models takes."""


@dataclass(frozen=True)
class Family:
    """A family of video models.

    Attributes:
        name: the host's class in `comfy.supported_models`.
        channels: channels of its latents.
        network: arguments of its network, narrow and shallow.
        text: what its conditioning holds beside the text.
        pooled: width of the pooled text, or 0.
    """

    name: str
    channels: int
    network: dict[str, Any]
    text: dict[str, Any] = field(default_factory=dict)
    pooled: int = 0


_WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "dim": 64, "ffn_dim": 64, "num_heads": 2,
    "num_layers": 1, "text_dim": WIDTH, "freq_dim": 32,
}  # fmt: skip
_HUNYUAN = {
    "image_model": "hunyuan_video", "context_in_dim": WIDTH, "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 2,
    "depth": 1, "depth_single_blocks": 1, "axes_dim": [8, 12, 12], "theta": 256, "patch_size": [1, 2, 2],
    "qkv_bias": True, "guidance_embed": False, "byt5": False, "meanflow": False, "meanflow_sum": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
}  # fmt: skip
_COSMOS = {
    "max_img_h": 16, "max_img_w": 16, "max_frames": 8, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "model_channels": 64, "num_blocks": 1, "num_heads": 2, "mlp_ratio": 2.0,
    "crossattn_emb_channels": WIDTH, "pos_emb_cls": "rope3d", "use_adaln_lora": True, "adaln_lora_dim": 8,
}  # fmt: skip
FAMILIES = (
    Family("WAN21_T2V", 16, {**_WAN, "in_dim": 16, "out_dim": 16}),
    Family("WAN22_T2V", 48, {**_WAN, "in_dim": 48, "out_dim": 48}),
    Family(
        "LTXV",
        128,
        {
            "image_model": "ltxv", "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
            "cross_attention_dim": WIDTH, "caption_channels": WIDTH,
        },
        {"attention_mask": torch.ones(1, 8, dtype=torch.int64)},
    ),
    Family("HunyuanVideo", 16, {**_HUNYUAN, "in_channels": 16, "out_channels": 16, "vec_in_dim": 24}, pooled=24),
    Family(
        "HunyuanVideo15",
        32,
        {**_HUNYUAN, "in_channels": 65, "out_channels": 32, "vec_in_dim": None, "patch_size": [1, 1, 1]},
        pooled=24,
    ),
    Family(
        "CosmosT2V",
        16,
        {**_COSMOS, "image_model": "cosmos", "block_x_format": "THWBD", "affline_emb_norm": True,
         "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable"},
    ),
    Family("CosmosT2IPredict2", 16, {**_COSMOS, "image_model": "cosmos_predict2"}),
    Family(
        "GenmoMochi",
        12,
        {
            "image_model": "mochi_preview", "depth": 1, "patch_size": 2, "num_heads": 2, "hidden_size_x": 64,
            "hidden_size_y": 32, "mlp_ratio_x": 192.0, "mlp_ratio_y": 2.0, "learn_sigma": False, "in_channels": 12,
            "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True,
            "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False,
            "timestep_scale": 1000.0, "use_t5": True, "t5_feat_dim": WIDTH, "t5_token_length": 8,
        },
        {"attention_mask": torch.ones(1, 8, dtype=torch.bool)},
    ),
    Family(
        "Kandinsky5",
        16,
        {
            "image_model": "kandinsky5", "in_visual_dim": 16, "out_visual_dim": 16, "in_text_dim": WIDTH,
            "in_text_dim2": 24, "time_dim": 32, "model_dim": 64, "ff_dim": 64, "visual_embed_dim": 132,
            "num_text_blocks": 1, "num_visual_blocks": 1, "axes_dims": (8, 12, 12),
        },
        pooled=24,
    ),
    Family(
        "CogVideoX_T2V",
        16,
        {
            "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 32, "time_embed_dim": 32,
            "text_embed_dim": WIDTH, "num_layers": 1, "use_rotary_positional_embeddings": True,
            "max_text_seq_length": 8,
        },
    ),
    Family("WAN21_CausalAR_T2V", 16, {**_WAN, "causal_ar": True, "in_dim": 16, "out_dim": 16}),
    Family(
        "SeedVR2",
        16,
        {
            "image_model": "seedvr2", "vid_dim": 64, "txt_in_dim": WIDTH, "heads": 2, "head_dim": 32, "rope_dim": 24,
            "num_layers": 2, "mm_layers": 1, "expand_ratio": 1, "norm_eps": 1e-5, "mlp_type": "swiglu",
            "vid_out_norm": True,
        },
        {"condition": torch.ones(1, 17, 3, 8, 8)},
    ),
)  # fmt: skip
WITH_SOUND = Family(
    "MiniMaxH3",
    24,
    {
        "image_model": "minimax_h3", "hidden_size": 64, "num_layers": 1, "token_refiner_num_layers": 1,
        "num_attention_heads": 2, "attention_head_dim": 32, "ffn_hidden_size": 64, "text_dim": WIDTH,
        "time_embed_hidden_size": 64, "time_embed_dim": 32, "rope_inv_freq_len": 4,
    },
)  # fmt: skip
"""Its latents hold sound too, so it is no family for the noise prior."""


def model_of(family: Family) -> Any:
    """Return a MODEL of a family with random weights, in float32; skip the test where this host lacks the family."""
    import comfy.model_management as management
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    if not hasattr(comfy.supported_models, family.name):
        pytest.skip(f"this ComfyUI has no {family.name}")
    network = dict(family.network)
    if network["image_model"] == "hunyuan_video":  # a newer host has more parameters
        network = {
            key: value for key, value in network.items() if key in {"image_model", *_hunyuan_parameters()}
        }
    config = getattr(comfy.supported_models, family.name)({**network, "dtype": torch.float32})
    model = config.get_model({})
    generator = torch.Generator().manual_seed(3)
    for tensor in model.diffusion_model.state_dict().values():
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor, std=0.1, generator=generator)
    return ModelPatcher(model.eval(), management.get_torch_device(), torch.device("cpu"))


def _hunyuan_parameters() -> set[str]:
    from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

    return {field.name for field in fields(HunyuanVideoParams)}


def text(family: Family, seed: int) -> list[Any]:
    """Return CONDITIONING that a family's model takes."""
    generator = torch.Generator().manual_seed(seed)
    pooled = {"pooled_output": torch.randn(1, family.pooled, generator=generator)} if family.pooled else {}
    tokens: Tensor = torch.randn(1, 8, WIDTH, generator=generator)
    return [[tokens, {**family.text, **pooled}]]
