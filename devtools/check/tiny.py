"""Small random weights in the exact file formats, for tests: no network is trained, every layer acts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from microcinema_core.config import AppearNetConfig, TextConfig, UNetConfig, VAEConfig
from microcinema_core.files.checkpoint import write_checkpoint
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.text import TextEncoder
from microcinema_core.networks.unet import UNet3D
from microcinema_core.networks.vae import FoldedVAE

CONTEXT = 32
UNET = UNetConfig(
    in_channels=8,
    out_channels=8,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    transformer_depth=(0, 1),
    context_dim=CONTEXT,
    num_head_channels=32,
)
ATTENDING = replace(UNET, transformer_depth=(1, 1), appearance_attention=True)
"""A U-Net that also sees the given frames."""
VAE = VAEConfig(
    widths=(32, 32),
    res_blocks=1,
    decoder_blocks=1,
    latent_rgb=tuple((0.1 * (row - 1),) * 8 + (0.0,) for row in range(3)),
)
TEXT = TextConfig(width=CONTEXT, layers=1, heads=2)


def random_weights(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights for a module (which may be on the meta device) with which every layer acts."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(shape: torch.Size) -> Tensor:
        value = torch.randn(shape, generator=generator)
        return value * (shape[1:].numel() ** -0.5) if len(shape) > 1 else value * 0.1

    state = {key: tensor(value.shape) for key, value in module.state_dict().items()}
    norms = (nn.GroupNorm, nn.LayerNorm)
    for name, layer in module.named_modules():
        if isinstance(layer, norms) and f"{name}.weight" in state:
            state[f"{name}.weight"] += 1.0
    return state


def unet_weights(config: UNetConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights of a U-Net."""
    with torch.device("meta"):
        net = UNet3D(config)
    return random_weights(net, seed)


def appearnet_weights(config: AppearNetConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights of an AppearNet."""
    with torch.device("meta"):
        net = AppearNet(config)
    return random_weights(net, seed)


def vae_weights(config: VAEConfig = VAE, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights of the small autoencoder."""
    with torch.device("meta"):
        net = FoldedVAE(config)
    return random_weights(net, seed)


def text_weights(config: TextConfig = TEXT, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights of a text encoder."""
    with torch.device("meta"):
        net = TextEncoder(config)
    return random_weights(net, seed)


def write_family(
    folder: Path,
    *,
    injection: str = "spade",
    unet: UNetConfig = UNET,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write tiny_image, tiny_base and tiny_tsr.safetensors, with the same parts as the mini models' files."""
    net = AppearNetConfig(unet, injection=injection, hidden=16)  # type: ignore[arg-type]
    configs: dict[str, Any] = {"unet": unet.as_2d(), "text": TEXT, "vae": VAE}
    image = {"unet": unet_weights(unet.as_2d()), "text": text_weights(), "vae": vae_weights()}
    write_checkpoint(
        folder / "tiny_image.safetensors",
        image,
        spec=ModelSpec("image", fps=1),
        configs=configs,
        dtype=dtype,
    )
    for seed, (role, fps, frames) in enumerate((("base", 2, 9), ("tsr", 8, 5))):
        write_checkpoint(
            folder / f"tiny_{role}.safetensors",
            {"unet": unet_weights(unet, seed), "appearnet": appearnet_weights(net, seed)},
            spec=ModelSpec(role, 0.03, fps, frames),
            configs={"unet": unet, "appearnet": net, "vae": VAE},
            dtype=dtype,
        )
