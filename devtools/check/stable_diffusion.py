"""Checkpoints in Stable Diffusion's format with random weights, for tests and the worked example.

The U-Net is small. Text encoder and VAE have their true shapes if ComfyUI has to load the file, because it builds no
others.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from microcinema_core.config import CONTEXT_LENGTH, TextConfig, UNetConfig

VOCABULARY, TOKENS = TextConfig.vocab_size, CONTEXT_LENGTH

SD15_UNET = UNetConfig(
    channel_mult=(1, 1),
    num_res_blocks=1,
    transformer_depth=(1, 0),
    context_dim=768,
    num_heads=8,
    num_head_channels=-1,
    use_linear_in_transformer=False,
).as_2d()
"""Two levels with what the host recognises SD 1.x by: 320 channels, contexts of 768, 1x1 projections."""

SD21_UNET = UNetConfig(channel_mult=(1, 1), num_res_blocks=1, transformer_depth=(1, 0)).as_2d()
"""The same for SD 2.x: contexts of 1024, linear projections."""


def write_stable_diffusion(
    path: Path, kind: str, *, unet: dict[str, Tensor] | None = None, small: bool = True, seed: int = 1
) -> Path:
    """Write random weights under Stable Diffusion's keys, in float16.

    Args:
        path: the file to write.
        kind: "sd1" for the text encoder of Stable Diffusion 1.5, "sd2" for that of 2.1.
        unet: weights of a U-Net, without the prefix; none if not given.
        small: narrow text encoder and VAE, which ComfyUI cannot load.
        seed: seed of the random weights.

    Returns:
        `path`.
    """
    if kind == "sd1":
        text = clip_shapes(64, 2) if small else clip_shapes()
    else:
        text = open_clip_shapes(64, 3) if small else open_clip_shapes()
    vae = autoencoder_shapes()
    if small:
        narrow = {128: 32, 256: 32, 512: 32}  # one width for all, so that no block has a shortcut convolution
        vae = {
            key: tuple(narrow.get(side, side) for side in shape)
            for key, shape in vae.items()
            if "nin_shortcut" not in key
        }
    tensors = {f"model.diffusion_model.{key}": tensor.half() for key, tensor in (unet or {}).items()}
    save_file(tensors | random_tensors(text, seed) | random_tensors(vae, seed + 1), str(path))
    return path


def clip_shapes(width: int = 768, layers: int = 12) -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of Stable Diffusion 1.5's text encoder (CLIP)."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (VOCABULARY, width),
        "embeddings.position_embedding.weight": (TOKENS, width),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
    }
    for layer in range(layers):
        parts: dict[str, tuple[int, ...]] = {
            f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")
        }
        parts |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        parts |= {"layer_norm1": (width,), "layer_norm2": (width,)}
        for name, shape in parts.items():
            shapes[f"encoder.layers.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layers.{layer}.{name}.bias"] = shape[:1]
    return {f"cond_stage_model.transformer.text_model.{key}": shape for key, shape in shapes.items()}


def open_clip_shapes(width: int = 1024, layers: int = 24) -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of Stable Diffusion 2.1's text encoder (OpenCLIP)."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (TOKENS, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "token_embedding.weight": (VOCABULARY, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for layer in range(layers):
        shapes |= {
            f"transformer.resblocks.{layer}.{name}": shape
            for name, shape in {
                "ln_1.weight": (width,),
                "ln_1.bias": (width,),
                "attn.in_proj_weight": (3 * width, width),
                "attn.in_proj_bias": (3 * width,),
                "attn.out_proj.weight": (width, width),
                "attn.out_proj.bias": (width,),
                "ln_2.weight": (width,),
                "ln_2.bias": (width,),
                "mlp.c_fc.weight": (4 * width, width),
                "mlp.c_fc.bias": (4 * width,),
                "mlp.c_proj.weight": (width, 4 * width),
                "mlp.c_proj.bias": (width,),
            }.items()
        }
    return {f"cond_stage_model.model.{key}": shape for key, shape in shapes.items()}


def autoencoder_shapes(latent: int = 4) -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of Stable Diffusion's VAE with this many latent channels."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, size: int = 3) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into, size, size), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def block(name: str, out: int, into: int) -> None:
        norm(f"{name}.norm1", into)
        conv(f"{name}.conv1", out, into)
        norm(f"{name}.norm2", out)
        conv(f"{name}.conv2", out, out)
        if out != into:
            conv(f"{name}.nin_shortcut", out, into, 1)

    def middle(name: str) -> None:
        block(f"{name}.block_1", 512, 512)
        norm(f"{name}.attn_1.norm", 512)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.attn_1.{part}", 512, 512, 1)
        block(f"{name}.block_2", 512, 512)

    widths = (128, 256, 512, 512)
    conv("encoder.conv_in", 128, 3)
    before = 128
    for level, width in enumerate(widths):
        for number in range(2):
            block(f"encoder.down.{level}.block.{number}", width, before)
            before = width
        if level < 3:
            conv(f"encoder.down.{level}.downsample.conv", width, width)
    middle("encoder.mid")
    norm("encoder.norm_out", 512)
    conv("encoder.conv_out", 2 * latent, 512)
    conv("decoder.conv_in", 512, latent)
    middle("decoder.mid")
    for level in reversed(range(4)):
        for number in range(3):
            block(f"decoder.up.{level}.block.{number}", widths[level], before)
            before = widths[level]
        if level > 0:
            conv(f"decoder.up.{level}.upsample.conv", before, before)
    norm("decoder.norm_out", 128)
    conv("decoder.conv_out", 3, 128)
    conv("quant_conv", 2 * latent, 2 * latent, 1)
    conv("post_quant_conv", latent, latent, 1)
    return {f"first_stage_model.{key}": shape for key, shape in shapes.items()}


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Return random float16 weights with which every layer acts; numbers are repeated to save time."""
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn((1 << 20) + 7, generator=generator)
    tensors = {}
    for key, shape in shapes.items():
        count = torch.Size(shape).numel()
        value = block.repeat(-(-count // len(block)))[:count].reshape(shape).roll(len(key))
        is_norm = any(part in key for part in ("norm", ".ln_"))
        scale = shape[1:].numel() ** -0.5 if len(shape := torch.Size(shape)) > 1 else 0.1
        tensors[key] = (value * scale + (is_norm and key.endswith("weight"))).half()
    return tensors
