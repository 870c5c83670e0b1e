"""Finding weight files and loading them as the host's objects: strict keys, dtypes and devices by the host's rules."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import UNetConfig
from ..files.checkpoint import Checkpoint, file_metadata, load_strict, read_checkpoint
from ..files.safetensors_io import fingerprint
from ..files.stable_diffusion import files_of
from ..messages import one_line
from ..networks.appearnet import AppearNet
from ..values import shown
from .appearance import AppearNetHandle
from .encoders import build_clip, build_vae, host_patcher
from .host import comfy, folder_paths
from .model import MicroCinemaModel, ModelInfo, with_window_check
from .network import host_attention, model_config
from .rescale import rescaled_sampling

FOLDER_KEY = "microcinema"
MOTION_KEY, MOTION_LORA_KEY = "animatediff_models", "animatediff_motion_lora"
"""Folder keys of published motion weights, which other packs use too; the host has no folders for them."""
LONGEST_PATH = 1024
"""Characters of a path that are surely enough; systems take 260 to 4096."""
SHIPPED_WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
NETWORK_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def register_folders() -> None:
    """Register `models/microcinema` with the pack's own weights, and the folders of published motion weights.

    No folder is listed here.
    """
    for key in (FOLDER_KEY, MOTION_KEY, MOTION_LORA_KEY):
        folder_paths.add_model_folder_path(key, str(Path(folder_paths.models_dir) / key))
    folder_paths.add_model_folder_path(FOLDER_KEY, str(SHIPPED_WEIGHTS))


def list_files(*keys: str) -> list[str]:
    """Return the safetensors files under the host's folder keys in order.

    A name that stands under an earlier key too has its own key before it: `controlnet/model.safetensors`.
    """
    names: dict[str, None] = {}
    for key in keys:
        found = [name for name in folder_paths.get_filename_list(key) if name.endswith(".safetensors")]
        names |= dict.fromkeys(f"{key}/{name}" if name in names else name for name in found)
    return list(names)


def list_diffusers_folders() -> list[str]:
    """Return the diffusers folders directly under the host's `models/diffusers`."""
    folders = (Path(folder) for folder in folder_paths.get_folder_paths("diffusers"))
    return sorted(path.parent.name for folder in folders for path in folder.glob("*/model_index.json"))


def find_file(name: str, *keys: str) -> Path:
    """Return the path of a listed file or diffusers folder.

    Only names that the host's folders hold are found, whatever is in the name: no path leads out of them.

    Raises:
        ValueError: no such file; the message names the folders that were searched.
    """
    folders = [folder for key in keys for folder in folder_paths.get_folder_paths(key)]
    searched = ", ".join(one_line(str(folder)) for folder in folders)
    if not isinstance(name, str) or not _is_writable(name):
        raise ValueError(f"{shown(name)} is no file name; choose a file in {searched}.")
    listed = name.replace("\\", "/")
    for key in keys:
        path = folder_paths.get_full_path(key, listed)
        if path is not None:
            return Path(path)
        if key == "diffusers" and listed in list_diffusers_folders():
            return next(
                Path(folder) / listed
                for folder in folder_paths.get_folder_paths(key)
                if (Path(folder) / listed / "model_index.json").is_file()
            )
    first, _, rest = listed.partition("/")
    if first in keys and (path := folder_paths.get_full_path(first, rest)) is not None:
        return Path(path)
    raise ValueError(
        f"{one_line(name)}: no such file in {searched}. Put it there and press R, or choose another."
    )


def _is_writable(name: str) -> bool:
    """Whether a file could have this name: no lone surrogates, no null characters, not longer than a path can be."""
    try:
        writable = "\0" not in os.fsencode(name).decode("utf-8", "surrogateescape")
        return writable and 0 < len(name) <= LONGEST_PATH
    except UnicodeEncodeError:
        return False


def fingerprints(path: Path) -> list[str]:
    """Return what changes when one of the files that are read of a file or diffusers folder is written again."""
    return [fingerprint(file) for file in files_of(path)]


@dataclass(frozen=True)
class Loaded:
    """The host's objects of one file; a network that the file lacks is a `MissingPart`."""

    model: Any
    clip: Any
    vae: Any
    appearnet: Any


class MissingPartError(AttributeError, ValueError):
    """Raised where a node uses a network that the loaded file does not hold."""


class MissingPart:
    """Placeholder for a network that is not in the file: any use of it raises `MissingPartError`."""

    WHERE = {
        "unet": "the U-Net: a MicroCinema file of role base or tsr has one",
        "text": "the text encoder (CLIP): take it from a file of role image, such as mini_image.safetensors",
        "vae": "the VAE: take it from a file of role image, such as mini_image.safetensors",
        "appearnet": "the AppearNet: a MicroCinema file of role base or tsr has one",
    }

    def __init__(self, message: str) -> None:
        self._message = message

    @classmethod
    def of(cls, part: str, checkpoint: Checkpoint) -> MissingPart:
        """Return the placeholder for a network that a MicroCinema file does not hold."""
        held = ", ".join(sorted(checkpoint.parts))
        return cls(f"{checkpoint.name} holds {held}, but not {cls.WHERE[part]}.")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise MissingPartError(self._message)


def load_checkpoint(path: Path, *, expect_roles: tuple[str, ...] | None = None) -> Loaded:
    """Load all networks of a MicroCinema file.

    Raises:
        ValueError: as for `read_checkpoint`, or weights that do not fit their network's configuration.
    """
    checkpoint = _read(path, expect_roles)

    def build(part: str, make: Callable[[Checkpoint], Any]) -> Any:
        return make(checkpoint) if part in checkpoint.parts else MissingPart.of(part, checkpoint)

    return Loaded(
        model=build("unet", build_model),
        clip=build("text", build_clip),
        vae=build("vae", build_vae),
        appearnet=build("appearnet", build_appearnet),
    )


def load_unet(path: Path, *, expect_roles: tuple[str, ...] | None = None) -> Any:
    """Load only the MODEL of a MicroCinema file; errors as for `load_checkpoint`."""
    return build_model(_read(path, expect_roles))


def load_appearnet(path: Path) -> AppearNetHandle:
    """Load only the APPEARNET of a MicroCinema file; errors as for `load_checkpoint`."""
    return build_appearnet(_read(path))


def _read(path: Path, expect_roles: tuple[str, ...] | None = None) -> Checkpoint:
    """Read a MicroCinema file; only the shipped files, which nobody writes to, stay mapped."""
    mapped = path.parent == SHIPPED_WEIGHTS and not comfy.utils.DISABLE_MMAP
    return read_checkpoint(path, expect_roles=expect_roles, mapped=mapped)


def build_model(checkpoint: Checkpoint, *, dtypes: tuple[Any, Any] | None = None) -> Any:
    """Build the MODEL of a file's U-Net.

    Args:
        checkpoint: the file, or networks in the same form.
        dtypes: dtype of the weights, and dtype to compute in or None; not given, the host chooses.

    Raises:
        ValueError: no U-Net in the file, or weights that do not fit its configuration.
    """
    state_dict = checkpoint.part("unet")
    config = checkpoint.config("unet")
    latent_rgb = checkpoint.described("vae").latent_rgb if "vae" in checkpoint.configs else None
    host_config = model_config(config, checkpoint.spec, latent_rgb=latent_rgb)
    host_config.model_class = MicroCinemaModel
    dtype, manual_cast = dtypes or _dtypes(state_dict, list(host_config.supported_inference_dtypes))
    host_config.set_inference_dtype(dtype, manual_cast)
    model = host_config.get_model(state_dict)
    model.info = _info(checkpoint, config)
    if checkpoint.spec.rescale != 1:
        model.model_sampling = rescaled_sampling(host_config, checkpoint.spec)
    _load_weights(model.diffusion_model, state_dict, f"the U-Net of {checkpoint.name}")
    return with_window_check(_patcher(model))


def _info(checkpoint: Checkpoint, config: UNetConfig) -> ModelInfo:
    kept = {key: value for key, value in checkpoint.configs.items() if key in ("unet", "vae")}
    return ModelInfo(config, checkpoint.spec, checkpoint.name, file_metadata(checkpoint.spec, kept))


def build_appearnet(checkpoint: Checkpoint) -> AppearNetHandle:
    """Build the APPEARNET of a file; errors as for `build_model`."""
    state_dict = checkpoint.part("appearnet")
    config = checkpoint.config("appearnet")
    dtype, manual_cast = _dtypes(state_dict, list(NETWORK_DTYPES))
    net = AppearNet(
        config,
        operations=comfy.ops.pick_operations(dtype, manual_cast),
        attend=host_attention,
        attn_precision=torch.float32 if config.unet.context_dim == 1024 else None,
        dtype=dtype,
    )
    _load_weights(net, state_dict, f"the AppearNet of {checkpoint.name}")
    net.requires_grad_(False).eval()
    net.compute_dtype = manual_cast or dtype
    grey = state_dict.get("grey")  # weights that were trained here bring it along
    features = None if grey is None else grey.float()[None]
    return AppearNetHandle(_patcher(net), config, checkpoint.spec, checkpoint.name, features)


def _load_weights(network: torch.nn.Module, state_dict: dict[str, Tensor], what: str) -> None:
    """Load weights; those of the network's dtype are used as they were read."""
    load_strict(network, state_dict, what, assign=True)


def _dtypes(state_dict: dict[str, Tensor], supported: list[torch.dtype]) -> tuple[Any, Any]:
    """Return (dtype of the weights, dtype to compute in or None), by the host's flags and the device."""
    parameters = sum(tensor.numel() for tensor in state_dict.values())
    held = [tensor.dtype for tensor in state_dict.values() if tensor.is_floating_point()]
    # A file whose matrices alone are in float8 is no float8 network: its norms would lose too much.
    stored = next((dtype for dtype in held if dtype.itemsize > 1), held[0] if held else torch.float32)
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
