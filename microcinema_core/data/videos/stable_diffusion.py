"""The VAE encoder and the text encoder of a Stable Diffusion 1.x or 2.x checkpoint, as the host runs them.

The networks are diffusers' and transformers' own, built offline from what the tensors' shapes say; keys are converted
by diffusers. The host's conventions, which tests hold them to: SD 1.x reads the last layer and pads captions with the
end token; SD 2.x reads the last but one, through the final norm, and pads with token 0; latents are scaled by 0.18215.
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

from ...files.checkpoint import load_strict
from ...files.safetensors_io import describe, header_shapes, read_header
from ...optional_deps import need
from ..tokens import END, START

SCALE = 0.18215
VAE_PREFIX = "first_stage_model."
CLIP_PREFIX = "cond_stage_model.transformer."
OPEN_CLIP_PREFIXES = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
HEAD = 64
"""Channels of an attention head, in both text encoders."""

WANTED = (
    "a whole Stable Diffusion 1.x or 2.x checkpoint was expected (one safetensors file with U-Net, text encoder and "
    "VAE, or a diffusers folder)"
)
StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Networks:
    """What latents and contexts are made with. padding: the token that fills a caption up to 77."""

    vae: nn.Module
    text: nn.Module
    padding: int

    @property
    def width(self) -> int:
        """d of a context (77, d)."""
        return int(self.text.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def digest(self) -> str:
        """A hash of both networks' tensors as float16: the same for one file and a folder of the same weights."""
        digest = hashlib.sha256(str(self.padding).encode())
        for name, module in (("vae", self.vae), ("text", self.text)):
            for key, tensor in sorted(module.state_dict().items()):
                if tensor.is_floating_point():
                    digest.update(f"{name}.{key}".encode())
                    digest.update(tensor.half().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def load_networks(path: Path) -> Networks:
    """Both encoders, float32, on the CPU, frozen.

    Raises:
        ValueError: no such file, another kind of model, or tensors missing; the message says which.
    """
    need("diffusers", "transformers")
    vae, text, padding = _from_folder(path) if path.is_dir() else _from_file(path)
    vae.decoder, vae.post_quant_conv = None, None  # what is encoded here is decoded by load_decoder
    return Networks(
        vae.float().eval().requires_grad_(False), text.float().eval().requires_grad_(False), padding
    )


def holds_decoder(path: Path) -> bool:
    """Whether a file or folder, of whatever kind, has a VAE that load_decoder can read."""
    if path.is_dir():
        return (path / "vae" / "config.json").is_file()
    return f"{VAE_PREFIX}decoder.conv_in.weight" in header_shapes(read_header(path))


def load_decoder(path: Path) -> nn.Module:
    """The VAE alone, without its encoder; float32, on the CPU, frozen. ValueError as load_networks."""
    need("diffusers", "transformers")
    if path.is_dir():
        vae = _vae_of_folder(path)
    else:
        shapes = header_shapes(read_header(path))
        with safe_open(path, "pt") as file:
            vae = _vae({key: file.get_tensor(key) for key in shapes if key.startswith(VAE_PREFIX)}, path.name)
    vae.encoder, vae.quant_conv = None, None
    return vae.float().eval().requires_grad_(False)


@torch.inference_mode()
def decoded(vae: nn.Module, latents: Tensor) -> Tensor:
    """Latents in model space (n, c, h, w) -> pictures (n, 3, 8 h, 8 w) in about [-1, 1]."""
    return vae.decode(latents / SCALE).sample  # type: ignore[operator]


def _vae_of_folder(folder: Path) -> Any:
    from diffusers import AutoencoderKL

    try:
        return AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True, use_safetensors=True)
    except OSError as error:
        raise ValueError(
            f"{folder}: {_first_line(error)}; weights are read from safetensors alone"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _from_folder(folder: Path) -> tuple[Any, Any, int]:
    from transformers import CLIPTextModel

    for part in ("vae", "text_encoder"):
        if not (folder / part / "config.json").is_file():
            raise ValueError(f"{folder} has no {part}/config.json; {WANTED}")
    vae = _vae_of_folder(folder)
    try:
        text = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=True
        )
    except OSError as error:
        raise ValueError(
            f"{folder}: {_first_line(error)}; weights are read from safetensors alone"
        ) from error
    return vae, text, 0 if text.config.hidden_act == "gelu" else END


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
            f"{path.name} holds no {' and no '.join(lacking)}: this is {describe(shapes)}; {WANTED}"
        )
    prefix = open_clip or CLIP_PREFIX
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in shapes if key.startswith((VAE_PREFIX, prefix))}
    vae = _vae(tensors, path.name)
    return (
        (vae, _open_clip(tensors, prefix, path.name), 0)
        if open_clip
        else (vae, _clip(tensors, path.name), END)
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
        "scaling_factor": SCALE,
    }
    vae = AutoencoderKL.from_config(config)
    converted = convert_ldm_vae_checkpoint(inner, config)
    load_strict(vae, {key: value.float() for key, value in converted.items()}, f"the VAE of {name}")
    return vae


def _clip(tensors: Mapping[str, Tensor], name: str) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint

    return _text_model(convert_ldm_clip_checkpoint(dict(tensors)), "quick_gelu", name, skipped=0)


def _open_clip(tensors: Mapping[str, Tensor], prefix: str, name: str) -> Any:
    """The last layer is left out: what the host reads is the one before, through the final norm."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    width = tensors[f"{prefix}positional_embedding"].shape[1]
    square = {f"{prefix}text_projection": torch.empty(width, width)}  # it is where the width is looked up
    converted = convert_open_clip_checkpoint(None, {**tensors, **square}, prefix=prefix)
    return _text_model(
        converted, "gelu", name, skipped=1, last=_layers_of(tensors, f"{prefix}transformer.resblocks.")
    )


def _layers_of(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)})


def _text_model(
    converted: Mapping[str, Tensor], activation: str, name: str, *, skipped: int, last: int = 0
) -> Any:
    """CLIP's text transformer with the shapes of these tensors, the last `skipped` layers left out."""
    from transformers import CLIPTextConfig, CLIPTextModel

    plain = {key.removeprefix("text_model."): value for key, value in converted.items()}
    layers = (last or _layers_of(plain, "encoder.layers.")) - skipped
    vocabulary, width = plain["embeddings.token_embedding.weight"].shape
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=plain["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // HEAD),
            max_position_embeddings=plain["embeddings.position_embedding.weight"].shape[0],
            hidden_act=activation,
            bos_token_id=START,
            eos_token_id=END,
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
