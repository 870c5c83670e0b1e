"""Load the VAE and the text encoder of a Stable Diffusion 1.x or 2.x checkpoint, with ComfyUI's conventions.

The networks are diffusers' and transformers' own, built offline from the shapes of the tensors; diffusers converts the
keys. SD 1.x reads the text encoder's last layer and pads captions with the end token. SD 2.x reads the last layer but
one, through the final norm, and pads with token 0. Latents are scaled by 0.18215. Tests compare this to ComfyUI.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ...config import END_TOKEN, START_TOKEN
from ...files.checkpoint import load_strict
from ...files.safetensors_io import describe, header_shapes, read_header
from ...optional_deps import require

LATENT_SCALE = 0.18215
VAE_PREFIX = "first_stage_model."
CLIP_PREFIX = "cond_stage_model.transformer."
OPEN_CLIP_PREFIXES = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Dtype that the encoders compute in, by the names of `--dtype`; None is the weights' own, float32."""
HEAD_CHANNELS = 64
"""Channels of an attention head, in both text encoders."""

EXPECTED = (
    "a whole Stable Diffusion 1.x or 2.x checkpoint was expected (one safetensors file with U-Net, text encoder and "
    "VAE, or a diffusers folder)"
)


@dataclass(frozen=True)
class EncoderNetworks:
    """The VAE without its decoder, the text encoder, and the token that pads captions to 77."""

    vae: nn.Module
    text: nn.Module
    padding: int

    def digest(self) -> str:
        """Return a hash of both networks' tensors as float16, equal for a file and a folder of the same weights."""
        return weights_digest({"vae": self.vae, "text": self.text}, str(self.padding))


def weights_digest(networks: Mapping[str, nn.Module], settings: str = "") -> str:
    """Return a hash of networks' tensors as float16 and of settings that belong to them."""
    digest = hashlib.sha256(settings.encode())
    for name, network in networks.items():
        for key, tensor in sorted(network.state_dict().items()):
            if tensor.is_floating_point():
                digest.update(f"{name}.{key}".encode())
                digest.update(tensor.half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_encoder_networks(path: Path) -> EncoderNetworks:
    """Load both encoders of a checkpoint file or diffusers folder: float32, on the CPU, frozen.

    Raises:
        ValueError: there is no such file, it holds another kind of model, or tensors are missing.
    """
    require("diffusers", "transformers")
    vae, text, padding = _from_folder(path) if path.is_dir() else _from_file(path)
    vae.decoder, vae.post_quant_conv = None, None  # `load_decoder` loads these
    return EncoderNetworks(
        vae.float().eval().requires_grad_(False), text.float().eval().requires_grad_(False), padding
    )


def has_decoder(path: Path) -> bool:
    """Return whether a file or folder of any kind has a VAE that `load_decoder` can read."""
    if path.is_dir():
        return (path / "vae" / "config.json").is_file()
    return f"{VAE_PREFIX}decoder.conv_in.weight" in header_shapes(read_header(path))


def load_decoder(path: Path) -> nn.Module:
    """Load the VAE without its encoder: float32, on the CPU, frozen; errors as for `load_encoder_networks`."""
    require("diffusers", "transformers")
    if path.is_dir():
        vae = _vae_from_folder(path)
    else:
        shapes = header_shapes(read_header(path))
        with safe_open(path, "pt") as file:
            vae = _vae({key: file.get_tensor(key) for key in shapes if key.startswith(VAE_PREFIX)}, path.name)
    vae.encoder, vae.quant_conv = None, None
    return vae.float().eval().requires_grad_(False)


@torch.inference_mode()
def decode_latents(vae: nn.Module, latents: Tensor) -> Tensor:
    """Decode latents in model space `n c h w` to RGB `n 3 8h 8w` in about [-1, 1]."""
    return vae.decode(latents / LATENT_SCALE).sample  # type: ignore[operator]


def _vae_from_folder(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    try:
        return AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True, use_safetensors=True)
    except OSError as error:
        raise ValueError(f"{folder}: {_first_line(error)}; weights are only read from safetensors") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _from_folder(folder: Path) -> tuple[Any, Any, int]:
    from transformers import CLIPTextModel

    for part in ("vae", "text_encoder"):
        if not (folder / part / "config.json").is_file():
            raise ValueError(f"{folder} has no {part}/config.json; {EXPECTED}")
    vae = _vae_from_folder(folder)
    try:
        text = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=True
        )
    except OSError as error:
        raise ValueError(f"{folder}: {_first_line(error)}; weights are only read from safetensors") from error
    return vae, text, 0 if text.config.hidden_act == "gelu" else END_TOKEN


def _from_file(path: Path) -> tuple[Any, Any, int]:
    shapes = header_shapes(read_header(path))
    open_clip = next((one for one in OPEN_CLIP_PREFIXES if f"{one}positional_embedding" in shapes), None)
    clip = any(key.startswith(CLIP_PREFIX) for key in shapes)
    lacking = [
        name
        for name, there in (
            ("VAE (first_stage_model)", f"{VAE_PREFIX}encoder.conv_in.weight" in shapes),
            ("text encoder (cond_stage_model)", clip or open_clip is not None),
        )
        if not there
    ]
    if lacking:
        raise ValueError(
            f"{path.name} holds no {' and no '.join(lacking)}: this is {describe(shapes)}; {EXPECTED}"
        )
    prefix = open_clip or CLIP_PREFIX
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in shapes if key.startswith((VAE_PREFIX, prefix))}
    vae = _vae(tensors, path.name)
    return (
        (vae, _open_clip(tensors, prefix, path.name), 0)
        if open_clip
        else (vae, _clip(tensors, path.name), END_TOKEN)
    )


def _vae(tensors: Mapping[str, Tensor], name: str) -> Any:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    inner = {key[len(VAE_PREFIX) :]: value for key, value in tensors.items() if key.startswith(VAE_PREFIX)}
    levels = len({key.split(".")[2] for key in inner if key.startswith("encoder.down.")})
    blocks = len({key.split(".")[4] for key in inner if key.startswith("encoder.down.0.block.")})
    config = {
        "in_channels": inner["encoder.conv_in.weight"].shape[1],
        "out_channels": inner["encoder.conv_in.weight"].shape[1],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [
            inner[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)
        ],
        "layers_per_block": blocks,
        "latent_channels": inner["quant_conv.weight"].shape[1] // 2,
        "scaling_factor": LATENT_SCALE,
    }
    vae = AutoencoderKL.from_config(config)
    converted = convert_ldm_vae_checkpoint(inner, config)
    load_strict(vae, {key: value.float() for key, value in converted.items()}, f"the VAE of {name}")
    return vae


def _clip(tensors: Mapping[str, Tensor], name: str) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint

    return _text_model(convert_ldm_clip_checkpoint(dict(tensors)), "quick_gelu", name, skipped=0)


def _open_clip(tensors: Mapping[str, Tensor], prefix: str, name: str) -> Any:
    """Build OpenCLIP's text encoder without its last layer, as the host reads the one before."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    width = tensors[f"{prefix}positional_embedding"].shape[1]
    square = {f"{prefix}text_projection": torch.empty(width, width)}  # diffusers looks up the width here
    converted = convert_open_clip_checkpoint(None, {**tensors, **square}, prefix=prefix)
    return _text_model(
        converted, "gelu", name, skipped=1, last=_count_layers(tensors, f"{prefix}transformer.resblocks.")
    )


def _count_layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)})


def _text_model(
    converted: Mapping[str, Tensor], activation: str, name: str, *, skipped: int, last: int = 0
) -> Any:
    """Build CLIP's text transformer from the tensors' shapes, without the last `skipped` layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    plain = {key.removeprefix("text_model."): value for key, value in converted.items()}
    layers = (last or _count_layers(plain, "encoder.layers.")) - skipped
    vocabulary, width = plain["embeddings.token_embedding.weight"].shape
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=plain["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // HEAD_CHANNELS),
            max_position_embeddings=plain["embeddings.position_embedding.weight"].shape[0],
            hidden_act=activation,
            bos_token_id=START_TOKEN,
            eos_token_id=END_TOKEN,
            pad_token_id=1,
        )
    )
    own = "text_model." if hasattr(model, "text_model") else ""  # transformers before 5.6 has one level more
    kept = {
        own + key: value.float()
        for key, value in plain.items()
        if key.startswith(("embeddings.", "encoder.", "final_layer_norm."))
        and not key.endswith("position_ids")
        and not any(key.startswith(f"encoder.layers.{layers + extra}.") for extra in range(skipped))
    }
    load_strict(model, kept, f"the text encoder of {name}")
    return model
