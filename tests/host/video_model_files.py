"""Stand-ins for the published files of whole video models: Stable Video Diffusion, the Crafter family, Wan."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from devtools.check import tiny
from devtools.check.crafter_files import UNET, write_crafter
from devtools.check.stable_diffusion import autoencoder_shapes, open_clip_shapes
from devtools.release.gallery.crafter import DYNAMICRAFTER, TOONCRAFTER, VIDEOCRAFTER, VISION
from tests.host.weight_files import Shapes, write_sparse, write_stand_in

SMALL_TEXT_PACK = Path(__file__).parent / "small_text_pack"
"""A node pack by which the host builds Wan's text encoder small; it has one size only, 5.7 B parameters."""
WAN_TEXT = {"num_layers": 1, "num_heads": 1, "d_ff": 64, "vocab_size": 64}
"""What that pack changes in the encoder's configuration."""


def write_video_models(models: Path) -> None:
    """Write SVD, the Crafter family, CLIP vision, and Wan's three files, with `comfy` in this process."""
    write_svd(models / "checkpoints" / "svd.safetensors")
    for name in (DYNAMICRAFTER, TOONCRAFTER):
        write_crafter(models / "checkpoints" / name)
    write_crafter(models / "checkpoints" / VIDEOCRAFTER, replace(UNET, image_context=0))
    write_vision(models / "clip_vision" / VISION)
    write_wan(models)


def add_small_text(base: Path) -> None:
    """Put the pack for Wan's small text encoder into a server's base folder, before the server starts."""
    shutil.copytree(SMALL_TEXT_PACK, base / "custom_nodes" / SMALL_TEXT_PACK.name)


def write_svd(path: Path) -> None:
    """Stable Video Diffusion: the host's own U-Net over time at one width, ViT-H and a VAE, nearly all zeros."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    net = UNetModel(
        image_size=32, in_channels=8, out_channels=4, model_channels=320, num_res_blocks=[2, 2, 2, 2],
        channel_mult=(1, 1, 1, 1), num_head_channels=64, use_spatial_transformer=True, context_dim=1024,
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        transformer_depth_middle=1, use_linear_in_transformer=True, adm_in_channels=768, num_classes="sequential",
        use_temporal_attention=True, use_temporal_resblock=True, extra_ff_mix_layer=True, use_spatial_context=True,
        merge_strategy="learned_with_images", video_kernel_size=[3, 1, 1], dtype=torch.float16, device="meta",
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    unet = {f"model.diffusion_model.{key}": tuple(value.shape) for key, value in net.state_dict().items()}
    write_stand_in(path, {}, {**unet, **vision_shapes(), **autoencoder_shapes()})


def vision_shapes(width: int = 1280, layers: int = 32) -> Shapes:
    """Return the shapes of OpenCLIP's ViT-H, by the keys of SVD's file."""
    shapes: Shapes = {
        "class_embedding": (width,),
        "positional_embedding": (257, width),
        "conv1.weight": (width, 3, 14, 14),
        "proj": (width, 1024),
    }
    blocks = {key: shape for key, shape in open_clip_shapes(width, layers).items() if "resblocks" in key}
    shapes |= {key.removeprefix("cond_stage_model.model."): shape for key, shape in blocks.items()}
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return {f"conditioner.embedders.0.open_clip.model.visual.{key}": shape for key, shape in shapes.items()}


def write_vision(path: Path) -> None:
    """CLIP vision ViT-H at its full size: pictures matter through the patches, its blocks are zeros."""
    import comfy.clip_model
    import comfy.clip_vision
    import comfy.ops

    config = Path(comfy.clip_vision.__file__).with_name("clip_vision_config_h.json")
    net = comfy.clip_model.CLIPVisionModelProjection(
        json.loads(config.read_text()), torch.float16, "meta", comfy.ops.disable_weight_init
    )
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    filled = {
        key: 0.1 * torch.randn(shape, generator=generator).half()
        for key, shape in shapes.items()
        if "embedding" in key
    }
    filled |= {
        key: torch.ones(shape).half()
        for key, shape in shapes.items()
        if "norm" in key and key.endswith("weight")
    }
    write_sparse(path, filled, {key: shape for key, shape in shapes.items() if key not in filled})


def write_wan(models: Path) -> None:
    """Wan 2.1 of one block, a narrow VAE, and the text encoder of `WAN_TEXT` with a vocabulary of its own."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel
    from comfy.ldm.wan.vae import WanVAE
    from comfy.text_encoders.t5 import T5

    operations: Any = comfy.ops.disable_weight_init
    with torch.device("meta"):
        net = WanModel(dim=128, ffn_dim=64, num_heads=1, num_layers=1, operations=operations, device="meta")
        vae = WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True])
        text = T5(_text_config(), torch.float32, "meta", operations)
    words = {key: value.half() for key, value in tiny.random_weights(text, 3).items()}
    words["encoder.block.23.layer.1.DenseReluDense.wi_1.weight"] = torch.zeros(1, 4096).half()  # tells XXL
    words["spiece_model"] = torch.frombuffer(bytearray(_vocabulary()), dtype=torch.uint8)
    for folder, name, tensors in (
        ("diffusion_models", "wan2.1_t2v_1.3B_fp16", tiny.random_weights(net, 1)),
        ("vae", "wan_2.1_vae", tiny.random_weights(vae, 2)),
        ("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled", words),
    ):
        (models / folder).mkdir(parents=True, exist_ok=True)
        save_file(
            {key: value.contiguous() for key, value in tensors.items()},
            str(models / folder / f"{name}.safetensors"),
        )


def _text_config() -> dict[str, Any]:
    import comfy.text_encoders.wan

    file = Path(comfy.text_encoders.wan.__file__).with_name("umt5_config_xxl.json")
    return {**json.loads(file.read_text()), **WAN_TEXT}


def _vocabulary() -> bytes:
    """Return a sentencepiece model of single letters, which the host reads from the file of the text encoder."""
    import sentencepiece

    made = io.BytesIO()
    sentences = ["the quick brown fox jumps over the lazy dog"] * 8
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=made, vocab_size=WAN_TEXT["vocab_size"], model_type="char",
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return made.getvalue()
