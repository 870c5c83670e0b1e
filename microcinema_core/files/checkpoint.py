"""MicroCinema's own weight files: one safetensors file, one or several networks, strict in what it takes.

The networks lie under the prefixes that Stable Diffusion files use; what is needed to build them (role,
configuration, `lambda`, fps, frames, prediction) lies in the metadata, under `microcinema.`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..diffusion.schedule import Prediction, Terminal
from .metadata import PREDICTIONS, ROLES, TERMINALS, metadata_of, read_fields
from .packing import pack_vocabulary, unpack_vocabulary
from .safetensors_io import read_header, read_tensors, write_tensors

PREFIXES = {
    "unet": "model.diffusion_model.",
    "appearnet": "appearnet.",
    "text": "cond_stage_model.",
    "vae": "first_stage_model.",
}
SINGLE_ROLES = ("unet", "appearnet")
StateDict = Mapping[str, Tensor]


class Config(Protocol):
    """What a configuration must be able to do to be written: every dataclass of `config.py` can."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Checkpoint:
    """A file that was read.

    Attributes:
        parts: state dicts, prefix removed, of those of "unet", "appearnet", "text", "vae" in the file.
        role: "image", "base", "tsr" (several networks) or "unet", "appearnet" (one).
        configs: the parts' configurations as plain dictionaries, for each class's `from_dict`.
        lambda_: the Appearance Noise Prior's lambda that the weights were trained with (0 for role image).
        fps, frames: what the weights were trained for.
        prediction: "eps" or "v".
        terminal: "sd", or "zero" where the noise schedule ends without signal.
        residual: the scale of the difference from z_c that is diffused (`noise.from_residual`); 0: the frames.
        metadata: all metadata of the file, as read.
        name: the file's name, for messages.
    """

    parts: dict[str, dict[str, Tensor]]
    role: str
    configs: dict[str, dict[str, Any]]
    lambda_: float
    fps: float
    frames: int
    prediction: Prediction = "eps"
    terminal: Terminal = "sd"
    residual: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)
    name: str = ""

    def part(self, key: str) -> dict[str, Tensor]:
        """Return one network's state dict; `ValueError` names what the file does hold."""
        if key not in self.parts or key not in self.configs:
            held = ", ".join(sorted(self.parts))
            raise ValueError(
                f"{self.name}: no {key} in this file of role {self.role!r}, which holds: {held}."
            )
        return self.parts[key]


def write_checkpoint(
    path: str | os.PathLike[str],
    parts: Mapping[str, StateDict],
    *,
    role: str,
    configs: Mapping[str, Config | Mapping[str, Any]],
    lambda_: float,
    fps: float,
    frames: int,
    prediction: str = "eps",
    terminal: str = "sd",
    residual: float = 0.0,
    dtype: torch.dtype = torch.float16,
    extra_metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write networks to one safetensors file, at once or not at all.

    Args:
        path: the file; its folder is made.
        parts: state dicts under "unet", "appearnet", "text", "vae".
        role: one of `ROLES`; the roles "unet" and "appearnet" hold that network only, keys without prefix.
        configs: the configuration of every part, under the same keys.
        lambda_, fps, frames, prediction, terminal, residual: see `Checkpoint`.
        dtype: what floating point tensors are stored as.
        extra_metadata: further entries, e.g. `modelspec.license`; they win over the defaults.

    Raises:
        ValueError: unknown role or part, a part without configuration, or an unknown prediction.
    """
    _check_arguments(parts, role=role, configs=configs, prediction=prediction, terminal=terminal)
    tensors = {
        _prefix(key, role) + name: _stored(tensor, dtype)
        for key, state_dict in parts.items()
        for name, tensor in (pack_vocabulary(state_dict) if key == "text" else state_dict).items()
    }
    plain = {key: _plain(config) for key, config in configs.items()}
    metadata = metadata_of(
        role=role,
        configs=plain,
        lambda_=lambda_,
        fps=fps,
        frames=frames,
        prediction=prediction,
        terminal=terminal,
        residual=residual,
    )
    write_tensors(Path(path), tensors, {**metadata, **dict(extra_metadata or {})})
    return Path(path)


def read_checkpoint(
    path: str | os.PathLike[str], *, expect_roles: Collection[str] | None = None
) -> Checkpoint:
    """Read a MicroCinema file.

    Args:
        path: the file.
        expect_roles: the roles that the caller can use; None takes every role.

    Raises:
        ValueError: not a readable safetensors file, not a MicroCinema file, another role, or keys that belong
            to no network; the message says what was found and what was expected.
    """
    name = Path(path).name
    fields = read_fields(name, read_header(path), expect_roles)
    tensors, metadata = read_tensors(path)
    return Checkpoint(parts=_split(name, tensors, fields["role"]), metadata=metadata, name=name, **fields)


def load_strict(module: nn.Module, state_dict: StateDict, what: str, *, assign: bool = False) -> None:
    """Load a state dict of which every key and shape must fit.

    Args:
        module: the network; works with layers that only get their weight at loading.
        state_dict: its tensors; not changed.
        what: the network's name for the message, e.g. "the U-Net of mini_base.safetensors".
        assign: take the tensors themselves where the precision is the network's own, instead of copying them. A file
            that is mapped into memory is then read as it is used, and what is written to a weight stays out of it.

    Raises:
        ValueError: names the first missing, unexpected and misshapen keys and says how many there are.
    """
    own = module.state_dict()
    wrong = [
        f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
        for key, value in state_dict.items()
        if key in own and value.shape != own[key].shape
    ]
    if wrong:
        raise ValueError(f"{what}: {_few(wrong, 'misshapen')}.")
    if assign:
        state_dict = {key: value.to(own[key]) if key in own else value for key, value in state_dict.items()}
    missing, unexpected = module.load_state_dict(dict(state_dict), strict=False, assign=assign)
    faults = [_few(missing, "missing"), _few(unexpected, "unexpected")]
    if missing or unexpected:
        raise ValueError(f"{what}: {'; '.join(fault for fault in faults if fault)}.")


def _few(keys: Collection[str], kind: str, limit: int = 4) -> str:
    if not keys:
        return ""
    shown = ", ".join(list(keys)[:limit])
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return f"{len(keys)} {kind} key{'s' if len(keys) > 1 else ''}: {shown}{more}"


def _check_arguments(
    parts: Mapping[str, StateDict], *, role: str, configs: Mapping[str, Any], prediction: str, terminal: str
) -> None:
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown, expected one of {', '.join(ROLES)}")
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction {prediction!r} is unknown, expected one of {', '.join(PREDICTIONS)}")
    if terminal not in TERMINALS or (terminal, prediction) == ("zero", "eps"):
        raise ValueError(
            f"a noise schedule that ends at {terminal!r} with prediction {prediction!r} cannot be, "
            "expected sd, or zero with v: pure noise says nothing of z_0 to a model that answers noise"
        )
    unknown = set(parts) - set(PREFIXES)
    if unknown or not parts:
        raise ValueError(f"parts {sorted(parts)} are unknown, expected some of {', '.join(PREFIXES)}")
    if role in SINGLE_ROLES and set(parts) != {role}:
        raise ValueError(f"a file of role {role!r} holds that network only, got {sorted(parts)}")
    if set(parts) - set(configs):
        raise ValueError(f"no configuration for {sorted(set(parts) - set(configs))}")


def _prefix(part: str, role: str) -> str:
    return "" if role in SINGLE_ROLES else PREFIXES[part]


def _plain(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else config.to_dict()


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
    return tensor.clone(memory_format=torch.contiguous_format)


def _split(name: str, tensors: dict[str, Tensor], role: str) -> dict[str, dict[str, Tensor]]:
    if role in SINGLE_ROLES:
        return {role: {key.removeprefix(PREFIXES[role]): value for key, value in tensors.items()}}
    parts: dict[str, dict[str, Tensor]] = {}
    strangers = []
    for key, tensor in tensors.items():
        part = next((part for part, prefix in PREFIXES.items() if key.startswith(prefix)), None)
        if part is None:
            strangers.append(key)
        else:
            parts.setdefault(part, {})[key[len(PREFIXES[part]) :]] = tensor
    if strangers:
        raise ValueError(f"{name}: {_few(strangers, 'unexpected')}, which belong to no MicroCinema network.")
    if "text" in parts:
        parts["text"] = unpack_vocabulary(parts["text"])
    return parts
