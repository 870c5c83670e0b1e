"""From files to the host's objects: dtypes and devices by the host's rules, weights strictly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import AppearNetConfig, UNetConfig
from ..files.checkpoint import Checkpoint, load_strict, read_checkpoint
from ..files.metadata import metadata_of
from ..networks.appearnet import AppearNet
from .appearance import AppearNetHandle
from .encoders import build_clip, build_vae, host_patcher
from .host import comfy
from .model import MicroCinemaModel, ModelInfo
from .network import host_attention, model_config

NETWORK_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Loaded:
    """The sockets of a file; a network that is not in it is an `Absent`."""

    model: Any
    clip: Any
    vae: Any
    appearnet: Any


class AbsentPartError(AttributeError, ValueError):
    """A node needs a network that the loaded file does not hold."""


class Absent:
    """Stands at a socket whose network is not in the file; whoever uses it is told so."""

    WHERE = {
        "unet": "the U-Net: a MicroCinema file of role base or tsr has one",
        "text": "the text encoder (CLIP): take it from a file of role image, such as mini_image.safetensors",
        "vae": "the VAE: take it from a file of role image, such as mini_image.safetensors",
        "appearnet": "the AppearNet: a MicroCinema file of role base or tsr has one",
    }

    def __init__(self, part: str, checkpoint: Checkpoint) -> None:
        held = ", ".join(sorted(checkpoint.parts))
        self._message = f"{checkpoint.name} holds {held}, but not {self.WHERE[part]}."

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AbsentPartError(self._message)


def load_checkpoint(path: Path, *, expect_roles: tuple[str, ...] | None = None) -> Loaded:
    """Load everything that a MicroCinema file holds; `ValueError` as `read_checkpoint` raises it."""
    checkpoint = read_checkpoint(path, expect_roles=expect_roles)

    def build(part: str, make: Callable[[Checkpoint], Any]) -> Any:
        return make(checkpoint) if part in checkpoint.parts else Absent(part, checkpoint)

    return Loaded(
        model=build("unet", build_model),
        clip=build("text", build_clip),
        vae=build("vae", build_vae),
        appearnet=build("appearnet", build_appearnet),
    )


def build_model(checkpoint: Checkpoint) -> Any:
    """Return the MODEL of a file's U-Net.

    Raises:
        ValueError: no U-Net in the file, or keys or shapes that are not its configuration's.
    """
    state_dict = checkpoint.part("unet")
    config = UNetConfig.from_dict(checkpoint.configs["unet"])
    latent_rgb = checkpoint.configs.get("vae", {}).get("latent_rgb")
    settings = model_config(
        config, prediction=checkpoint.prediction, terminal=checkpoint.terminal, latent_rgb=latent_rgb
    )
    settings.model_class = MicroCinemaModel
    dtype, manual_cast = _dtypes(state_dict, list(settings.supported_inference_dtypes))
    settings.set_inference_dtype(dtype, manual_cast)
    model = settings.get_model(state_dict)
    model.info = _info(checkpoint, config)
    _fill(model.diffusion_model, state_dict, f"the U-Net of {checkpoint.name}")
    return _patcher(model)


def _info(checkpoint: Checkpoint, config: UNetConfig) -> ModelInfo:
    said: dict[str, Any] = {
        "role": checkpoint.role,
        "lambda_": checkpoint.lambda_,
        "fps": checkpoint.fps,
        "frames": checkpoint.frames,
        "residual": checkpoint.residual,
    }
    kept = {key: value for key, value in checkpoint.configs.items() if key in ("unet", "vae")}
    metadata = metadata_of(
        configs=kept, prediction=checkpoint.prediction, terminal=checkpoint.terminal, **said
    )
    return ModelInfo(config=config, name=checkpoint.name, metadata=metadata, **said)


def build_appearnet(checkpoint: Checkpoint) -> AppearNetHandle:
    """Return the APPEARNET of a file; errors as for `build_model`."""
    state_dict = checkpoint.part("appearnet")
    config = AppearNetConfig.from_dict(checkpoint.configs["appearnet"])
    dtype, manual_cast = _dtypes(state_dict, list(NETWORK_DTYPES))
    net = AppearNet(
        config,
        operations=comfy.ops.pick_operations(dtype, manual_cast),
        attend=host_attention,
        attn_precision=torch.float32 if config.unet.context_dim == 1024 else None,
        dtype=dtype,
    )
    _fill(net, state_dict, f"the AppearNet of {checkpoint.name}")
    net.requires_grad_(False).eval()
    return AppearNetHandle(_patcher(net), config, checkpoint.role, checkpoint.name)


def load_unet(path: Path, *, expect_roles: tuple[str, ...] | None = None) -> Any:
    """Load the MODEL of a MicroCinema file alone; `ValueError` as for `load_checkpoint`."""
    return build_model(read_checkpoint(path, expect_roles=expect_roles))


def load_appearnet(path: Path) -> AppearNetHandle:
    """Load the APPEARNET of a MicroCinema file alone; `ValueError` as for `load_checkpoint`."""
    return build_appearnet(read_checkpoint(path))


def _fill(network: torch.nn.Module, state_dict: dict[str, Tensor], what: str) -> None:
    """Weights stay in the mapped file where they have the precision asked for, unless `--disable-mmap` forbids it."""
    load_strict(network, state_dict, what, assign=not comfy.utils.DISABLE_MMAP)


def _dtypes(state_dict: dict[str, Tensor], supported: list[torch.dtype]) -> tuple[Any, Any]:
    """Return (weight dtype, dtype to compute in or None) as the host's flags and the device want them."""
    parameters = sum(tensor.numel() for tensor in state_dict.values())
    stored = next((t.dtype for t in state_dict.values() if t.is_floating_point()), torch.float32)
    dtype = comfy.model_management.unet_dtype(
        model_params=parameters, supported_dtypes=supported, weight_dtype=stored
    )
    return dtype, comfy.model_management.unet_manual_cast(
        dtype, comfy.model_management.get_torch_device(), supported
    )


def _patcher(module: torch.nn.Module) -> Any:
    offload = comfy.model_management.unet_offload_device()
    return host_patcher(
        module.to(offload), load_device=comfy.model_management.get_torch_device(), offload_device=offload
    )
