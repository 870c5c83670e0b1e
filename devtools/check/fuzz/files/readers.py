"""The readers of weight files in the core: what each reads, and a try of one with a damaged file."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microcinema_core.files.checkpoint import PREFIXES, Checkpoint, read_checkpoint
from microcinema_core.files.inflate import inflate
from microcinema_core.files.load_networks import load_text_encoder, load_vae, load_video_model
from microcinema_core.files.published import add_motion_lora, read_motion_module, read_sparsectrl
from microcinema_core.files.safetensors_io import LDM_PREFIX, header_shapes, read_header
from microcinema_core.files.stable_diffusion import read_stable_diffusion

from ..outcome import NotFiniteError, Outcome, judged
from . import good
from .damage import damaged

NAME = "given.safetensors"


@dataclass(frozen=True)
class Demands:
    """What a reader refuses in a file.

    Attributes:
        finite: prefixes of the keys of tensors in which it refuses NaN and infinity.
        whole: prefixes of the keys of tensors that it refuses to miss.
        shaped: whether it refuses other shapes and dtypes of those.
        parts: the networks whose configurations it reads, where the file holds them.
    """

    finite: tuple[str, ...] = ("",)
    whole: tuple[str, ...] = ()
    shaped: bool = False
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """A function that reads a file.

    Attributes:
        read: reads the file and uses what it got; raises `NotFiniteError` where that is not finite.
        files: the good files that it takes.
        demands: what it refuses in them.
        names_file: whether its sentences name the file.
    """

    read: Callable[[Path], object]
    files: tuple[str, ...]
    demands: Demands = Demands()
    names_file: bool = True


def require_finite(tensors: Iterable[Tensor], what: str) -> None:
    """Raise `NotFiniteError` where a tensor is not finite."""
    for tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise NotFiniteError(f"{what}: accepted, and the result is not finite")


def _checkpoint(path: Path) -> Checkpoint:
    read = read_checkpoint(path)
    for part in read.parts.values():
        require_finite(part.values(), "the tensors")
    numbers = (read.spec.lambda_, read.spec.fps, read.spec.residual, read.spec.sampling.cfg)
    if not all(map(math.isfinite, numbers)):
        raise NotFiniteError(f"the spec {read.spec}: accepted, and not finite")
    return read


def _video(path: Path) -> None:
    model = load_video_model(_checkpoint(path))
    config = model.unet.config
    text = torch.zeros(1, 3, config.context_dim)
    latents = torch.zeros(1, config.in_channels, 8, 8)
    clip = model.sample(latents, text, text, frames=3, steps=1, guidance_scale=1)
    require_finite([clip], "the clip")


def _text(path: Path) -> None:
    encoder = load_text_encoder(_checkpoint(path))
    length, words = min(encoder.config.length, 3), encoder.config.vocab_size
    require_finite([encoder(torch.tensor([[words - 1] * length]))], "the text")


def _vae(path: Path) -> None:
    vae = load_vae(_checkpoint(path))
    require_finite([vae.decode(vae.encode(torch.zeros(1, 3, 16, 16)))], "the picture")


def _stable_diffusion(path: Path) -> None:
    require_finite(read_stable_diffusion(path).parts["unet"].values(), "the U-Net")


def _inflate(path: Path) -> None:
    read = read_stable_diffusion(path)
    made = inflate(read.part("unet"), config=read.described("unet"))
    require_finite([*made.unet.values(), *made.appearnet.values()], "the networks")


def _motion(path: Path) -> None:
    read = read_motion_module(path, good.IMAGE)
    require_finite([*read.temporal.values(), *(read.appearnet or {}).values()], "the module")


def _sparsectrl(path: Path) -> None:
    require_finite(read_sparsectrl(path).weights.values(), "the encoder")


def _lora(path: Path) -> None:
    module = read_motion_module(_good_folder() / "v2_original.safetensors", good.IMAGE)
    require_finite(add_motion_lora(module.temporal, path, module.config, 1.0).values(), "the module")


_FAMILY = ("tiny_base", "tiny_tsr", "tiny_image", "tiny_unet", "tiny_appearnet")
_UNETS = ("sd_checkpoint", "sd_unet", "sd_diffusers", "sd_folder")
_TABLES = "pos_e"
READERS: dict[str, Reader] = {
    "read_checkpoint": Reader(_checkpoint, _FAMILY),
    "load_video_model": Reader(
        _video, ("tiny_base", "tiny_tsr"), Demands(whole=("",), shaped=True, parts=("unet", "appearnet"))
    ),
    "load_text_encoder": Reader(
        _text, ("tiny_image",), Demands(whole=("cond_stage_model.",), shaped=True, parts=("text",))
    ),
    "load_vae": Reader(
        _vae, ("tiny_image",), Demands(whole=("first_stage_model.",), shaped=True, parts=("vae",))
    ),
    "read_stable_diffusion": Reader(_stable_diffusion, _UNETS, Demands(finite=(LDM_PREFIX,))),
    "inflate": Reader(_inflate, _UNETS, Demands(finite=(LDM_PREFIX,), whole=(LDM_PREFIX,)), names_file=False),
    "read_motion_module": Reader(_motion, ("v3", "v3_original", "v2", "v2_original", "pia")),
    "read_sparsectrl": Reader(_sparsectrl, ("sparsectrl", "sparsectrl_webui")),
    "add_motion_lora": Reader(_lora, ("motion_lora", "motion_lora_webui"), Demands(whole=("",), shaped=True)),
}


@functools.cache
def _good_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="microcinema-fuzz-"))
    good.write_all(folder)
    return folder


def good_path(name: str) -> Path:
    """Return a good file or folder by its name."""
    folder = _good_folder() / name
    return folder if folder.is_dir() else folder.with_suffix(".safetensors")


def describe() -> dict[str, Any]:
    """Return, for each reader, what its files hold (see `contents`), and the files of other kinds."""
    torch.set_num_threads(1)
    return {
        name: {
            "files": {file: contents(good_path(file), reader.demands) for file in reader.files},
            "others": sorted({one for other in READERS.values() for one in other.files} - set(reader.files)),
        }
        for name, reader in READERS.items()
    }


def contents(path: Path, demands: Demands) -> dict[str, Any]:
    """Return the keys of a file's tensors, which of them may not be spoilt in which way, and its metadata."""
    weights = next(path.rglob("*.safetensors")) if path.is_dir() else path
    header = read_header(weights)
    shapes = header_shapes(header)
    prefixed = any(key.startswith(LDM_PREFIX) for key in shapes)

    def under(prefixes: tuple[str, ...], key: str) -> bool:
        return any(key.startswith(one) or (one == LDM_PREFIX and not prefixed) for one in prefixes)

    kept = [key for key in shapes if _TABLES not in key]
    whole = [key for key in kept if under(demands.whole, key)]
    role = header.get("__metadata__", {}).get("microcinema.role")
    held = {role} | {
        part for part, prefix in PREFIXES.items() if any(key.startswith(prefix) for key in shapes)
    }
    return {
        "keys": list(shapes),
        "finite": [
            key for key in kept if under(demands.finite, key) and header[key]["dtype"].startswith("F")
        ],
        "whole": whole,
        "later": [key for key in shapes if header[key]["data_offsets"][0] > 0],
        "shaped": [key for key in whole if demands.shaped],
        "parts": [part for part in demands.parts if part in held],
        "metadata": dict(header.get("__metadata__", {})),
        "folder": path.is_dir(),
    }


def attempt(case: dict[str, Any]) -> Outcome:
    """Give a reader a damaged file."""
    reader, path = READERS[case["target"]], good_path(case["from"])
    target = _good_folder() / "tried" / NAME
    target.parent.mkdir(exist_ok=True)
    damaged(path, case["faults"], target)
    try:
        with torch.inference_mode():
            reader.read(target)
    except Exception as error:  # noqa: BLE001  (every error is judged)
        return judged(error, NAME if reader.names_file else "")
    return Outcome("accepted")
