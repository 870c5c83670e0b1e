"""MicroCinema's weight files: one safetensors file with one or several networks, read strictly.

Each network's keys have the prefix that Stable Diffusion files use. The metadata, under `microcinema.`, hold what is
needed to build the networks: a `ModelSpec` and their configurations.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import AppearNetConfig, Config, TextConfig, UNetConfig, VAEConfig
from ..messages import one_line
from ..model_spec import ModelSpec, parse_json
from ..networks.appearnet import AppearNet
from ..networks.text import TextEncoder
from ..networks.unet import UNet3D
from ..networks.vae import FoldedVAE
from ..values import shown
from .safetensors_io import (
    LDM_PREFIX,
    Shapes,
    describe,
    header_shapes,
    read_header,
    read_tensors,
    write_tensors,
)

FORMAT = "1"
"""Version of the file format, metadata entry `microcinema.format`."""
PREFIXES = {
    "unet": LDM_PREFIX,
    "appearnet": "appearnet.",
    "text": "cond_stage_model.",
    "vae": "first_stage_model.",
}
NETWORKS: dict[str, tuple[type[Config], Callable[[Any], nn.Module], str]] = {
    "unet": (UNetConfig, UNet3D, "U-Net"),
    "appearnet": (AppearNetConfig, AppearNet, "AppearNet"),
    "text": (TextConfig, TextEncoder, "text encoder"),
    "vae": (VAEConfig, FoldedVAE, "VAE"),
}
"""Class of a part's configuration, what builds its network, and its name."""
SINGLE_ROLES = ("unet", "appearnet")
"""Roles of files with one network, whose keys have no prefix."""
StateDict = Mapping[str, Tensor]
TOKEN_EMBEDDING = "text_model.embeddings.token_embedding."


@dataclass(frozen=True)
class Checkpoint:
    """The contents of one weight file.

    Attributes:
        parts: state dicts without prefix, by name: "unet", "appearnet", "text", "vae", as far as the file has them.
        spec: what the weights were trained for.
        configs: the parts' configurations as JSON objects, for each class's `from_dict`.
        metadata: all metadata of the file, unchanged.
        name: the file's name, for messages.
    """

    parts: dict[str, dict[str, Tensor]]
    spec: ModelSpec
    configs: dict[str, dict[str, Any]]
    metadata: dict[str, str] = field(default_factory=dict)
    name: str = ""

    def part(self, key: str) -> dict[str, Tensor]:
        """Return one network's state dict.

        Raises:
            ValueError: the file does not hold this network; the message names those that it holds.
        """
        if key not in self.parts or key not in self.configs:
            held = ", ".join(sorted(self.parts))
            raise ValueError(
                f"{self.name}: no {key} in this file of role {self.spec.role!r}, which holds: {held}."
            )
        return self.parts[key]

    def config(self, key: str) -> Any:
        """Return the configuration of one network, after comparing the network that it describes with the weights.

        Nothing is allocated for that, so memory follows the file and not what its metadata say.

        Raises:
            ValueError: no such network in the file, a malformed configuration, or weights that do not fit it.
        """
        weights, config = self.part(key), self.described(key)
        _, build, words = NETWORKS[key]
        try:
            expected = expected_shapes(build, config)
        except _UNBUILDABLE as error:
            raise self._unreadable(words, error) from error
        _require_fitting(weights, expected, f"the {words} of {self.name}")
        return config

    def described(self, key: str) -> Any:
        """Return the configuration that the file gives of one network, also where it does not hold its weights.

        Raises:
            ValueError: a malformed configuration.
        """
        kind, _, words = NETWORKS[key]
        try:
            config = kind.from_dict(self.configs[key])
            if isinstance(config, VAEConfig):
                _require_previews(config)
        except (KeyError, *_UNBUILDABLE) as error:
            raise self._unreadable(words, error) from error
        return config

    def _unreadable(self, words: str, error: Exception) -> ValueError:
        return ValueError(
            f"{self.name}: the configuration of its {words} is unreadable ({error}): get or train the file again."
        )


def _require_previews(config: VAEConfig) -> None:
    """Refuse a map from latents to RGB that is not of three rows with a number for each channel and a bias."""
    rows = [] if config.latent_rgb is None else [len(row) for row in config.latent_rgb]
    if rows not in ([], [config.latent_channels + 1] * 3):
        raise ValueError(f"latent_rgb has rows of {rows} numbers; expected 3 of {config.latent_channels + 1}")


_UNBUILDABLE = (ValueError, TypeError, ArithmeticError, RuntimeError, RecursionError)
"""What the constructors of networks raise for configurations that contradict themselves."""


def write_checkpoint(
    path: str | os.PathLike[str],
    parts: Mapping[str, StateDict],
    *,
    spec: ModelSpec,
    configs: Mapping[str, Config | Mapping[str, Any]],
    dtype: torch.dtype = torch.float16,
    extra_metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write networks to one safetensors file, atomically, and return its path.

    Args:
        path: the file; its folder is made.
        parts: state dicts by name: "unet", "appearnet", "text", "vae".
        spec: what the weights were trained for. A file of the role "unet" or "appearnet" holds only that network, with
            keys without prefix.
        configs: the configuration of every part, by the same names.
        dtype: storage type of floating-point tensors.
        extra_metadata: further entries, such as `modelspec.license`; they override the defaults.

    Raises:
        ValueError: an unknown part, or a part without configuration.
    """
    _check_parts(parts, spec.role, configs)
    tensors = {
        _prefix(key, spec.role) + name: _stored(tensor, dtype)
        for key, state_dict in parts.items()
        for name, tensor in (pack_token_embedding(state_dict) if key == "text" else state_dict).items()
    }
    metadata = file_metadata(spec, {key: _plain(config) for key, config in configs.items()})
    write_tensors(Path(path), tensors, {**metadata, **dict(extra_metadata or {})})
    return Path(path)


def is_microcinema(path: Path) -> bool:
    """Return whether a path is a file of MicroCinema's own format."""
    return path.is_file() and "microcinema.format" in read_header(path).get("__metadata__", {})


def read_checkpoint(
    path: str | os.PathLike[str], *, expect_roles: Collection[str] | None = None, mapped: bool = False
) -> Checkpoint:
    """Read a MicroCinema file.

    Args:
        path: the file.
        expect_roles: the roles that the caller can use; None accepts all.
        mapped: as for `read_tensors`.

    Raises:
        ValueError: not a readable safetensors file, not a MicroCinema file, of another role, or with keys that belong
            to no network. The message states what was found and what was expected.
    """
    name, header = one_line(Path(path).name), read_header(path)
    spec, configs = read_metadata(name, header, expect_roles)
    tensors, metadata = read_tensors(path, header=header, mapped=mapped)
    return Checkpoint(_split(name, tensors, spec.role), spec, configs, metadata, name)


def expected_shapes(build: Callable[[Any], nn.Module], config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors by key, without allocating it."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build(config).state_dict().items()}


def _require_fitting(tensors: StateDict, expected: Shapes, what: str) -> None:
    """Refuse keys and shapes that differ, and weights that are not floating-point numbers."""
    _require_shapes({key: tuple(tensor.shape) for key, tensor in tensors.items()}, expected, what)
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(
                f"{what}: {shown(key)} holds {tensor.dtype} numbers, floating-point weights were expected: get or "
                "train the file again."
            )


def _require_shapes(found: Shapes, expected: Shapes, what: str) -> None:
    """Refuse keys and shapes that differ; the message names the first of each kind."""
    wrong = [
        f"{shown(key)} {found[key]} for {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    faults = [
        _few(wrong, "misshapen"),
        _few([key for key in expected if key not in found], "missing"),
        _few([shown(key) for key in found if key not in expected], "unexpected"),
    ]
    if any(faults):
        raise ValueError(f"{what}: {'; '.join(fault for fault in faults if fault)}.")


def file_metadata(spec: ModelSpec, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return a file's metadata for a spec and the configurations of its networks."""
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"microcinema/{spec.role}",
        "modelspec.title": f"MicroCinema {spec.role}",
        "modelspec.prediction_type": {"eps": "epsilon", "v": "v"}[spec.prediction],
        "microcinema.format": FORMAT,
        "microcinema.config": json.dumps(configs, sort_keys=True),
        **spec.to_metadata(),
    }


def read_metadata(
    name: str, header: Mapping[str, dict], expect_roles: Collection[str] | None = None
) -> tuple[ModelSpec, dict[str, dict[str, Any]]]:
    """Read the spec and the networks' configurations from a file's header.

    Args:
        name: the file's name, for messages.
        header: from `read_header`.
        expect_roles: the roles that the caller can use; None accepts all.

    Raises:
        ValueError: not a MicroCinema file, of another role, or with a metadata entry missing or unreadable.
    """
    wanted = _wanted(expect_roles)
    metadata = header.get("__metadata__", {})
    version = metadata.get("microcinema.format")
    if version is None:
        raise ValueError(_foreign(name, header, wanted=wanted))
    if version != FORMAT:
        raise ValueError(
            f"{name}: MicroCinema format {shown(version)}, this version reads {FORMAT}: update the node pack."
        )
    try:
        spec = ModelSpec.from_metadata(metadata)
        configs = parse_json("config", metadata["microcinema.config"])
        if not isinstance(configs, dict):
            raise ValueError(f"config is {shown(configs)}; expected a JSON object")
    except KeyError as error:
        missing = str(error.args[0]).removeprefix(ModelSpec.PREFIX)
        raise ValueError(
            f"{name}: the metadata entry '{ModelSpec.PREFIX}{missing}' is missing, {wanted} was expected."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{name}: a metadata entry is unreadable ({error}), {wanted} was expected."
        ) from error
    if expect_roles is not None and spec.role not in expect_roles:
        raise ValueError(f"{name}: this file's role is {spec.role!r}, {wanted} was expected.")
    return spec, configs


def load_strict(module: nn.Module, state_dict: StateDict, what: str, *, assign: bool = False) -> None:
    """Load a state dict whose keys and shapes all have to match.

    Args:
        module: the network; layers that create their weight only on loading are supported.
        state_dict: its tensors; not changed.
        what: the network's name for messages, e.g. "the U-Net of mini_base.safetensors".
        assign: use the tensors themselves instead of copies where their dtype is the network's. A memory-mapped file
            is then read on use; writing to a weight does not change the file.

    Raises:
        ValueError: names the first missing, unexpected and misshapen keys, and how many there are of each.
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


def _check_parts(parts: Mapping[str, StateDict], role: str, configs: Mapping[str, Any]) -> None:
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


def _split(name: str, tensors: StateDict, role: str) -> dict[str, dict[str, Tensor]]:
    """Return what stands under a file's keys by network, without the prefixes."""
    if role in SINGLE_ROLES:
        return {role: {key.removeprefix(PREFIXES[role]): value for key, value in tensors.items()}}
    parts: dict[str, dict[str, Tensor]] = {}
    strangers = []
    for key, tensor in tensors.items():
        part = next((part for part, prefix in PREFIXES.items() if key.startswith(prefix)), None)
        if part is None:
            strangers.append(shown(key))
        else:
            parts.setdefault(part, {})[key[len(PREFIXES[part]) :]] = tensor
    if strangers:
        raise ValueError(f"{name}: {_few(strangers, 'unexpected')}, which belong to no MicroCinema network.")
    if "text" in parts:
        parts["text"] = _unpacked(name, parts["text"])
    return parts


def _wanted(roles: Collection[str] | None) -> str:
    return (
        f"a MicroCinema file of role {' or '.join(repr(role) for role in roles)}"
        if roles
        else "a MicroCinema file"
    )


def _foreign(name: str, header: Mapping[str, dict], *, wanted: str) -> str:
    kind = describe(header_shapes(header))
    hint = ": use the node MicroCinema Inflate to turn it into a MicroCinema model"
    inflatable = "Diffusion 1.x" in kind or "Diffusion 2.x" in kind
    return f"{name}: this is {kind}, {wanted} was expected{hint if inflatable else ''}."


def _unpacked(name: str, text: StateDict) -> dict[str, Tensor]:
    """Return a text encoder's state dict with its whole token embedding.

    Raises:
        ValueError: a packed embedding that lacks a field, or whose fields do not fit each other.
    """
    packed = {key.removeprefix(TOKEN_EMBEDDING) for key in text if key.startswith(TOKEN_EMBEDDING)}
    if packed <= {"weight"}:
        return dict(text)
    if packed == {"rows", "ids", "size"} and _rows_fit(
        *(text[TOKEN_EMBEDDING + field] for field in ("rows", "ids", "size"))
    ):
        return unpack_token_embedding(text)
    raise ValueError(
        f"{name}: its token embedding ({', '.join(sorted(map(shown, packed)))}) is damaged; rows, ids and size that "
        "fit each other were expected: get or train the file again."
    )


def _rows_fit(rows: Tensor, ids: Tensor, size: Tensor) -> bool:
    """Whether a packed embedding's fields fit each other."""
    words = TextConfig.RANGES["vocab_size"][1]
    shaped = rows.ndim == 2 and ids.ndim == 1 and len(ids) == len(rows) and size.numel() == 1
    return shaped and 0 < int(size) <= words and all(0 <= int(number) < int(size) for number in ids)


def pack_token_embedding(text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a text encoder's state dict with only the non-zero rows of its token embedding.

    The rows' token ids and the vocabulary's size are stored beside them. This saves 12 MB for an encoder that was
    trained on a thousand words.
    """
    packed = {key: tensor for key, tensor in text.items() if key != TOKEN_EMBEDDING + "weight"}
    if len(packed) == len(text):
        return packed
    weight = text[TOKEN_EMBEDDING + "weight"]
    ids = weight.any(dim=1).nonzero()[:, 0]
    size = torch.tensor([weight.shape[0]], dtype=torch.int32)
    return {
        **packed,
        TOKEN_EMBEDDING + "rows": weight[ids],
        TOKEN_EMBEDDING + "ids": ids.int(),
        TOKEN_EMBEDDING + "size": size,
    }


def unpack_token_embedding(text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `pack_token_embedding`; a state dict with a full embedding is returned unchanged."""
    if TOKEN_EMBEDDING + "rows" not in text:
        return dict(text)
    rows, ids = text[TOKEN_EMBEDDING + "rows"], text[TOKEN_EMBEDDING + "ids"]
    weight = rows.new_zeros(int(text[TOKEN_EMBEDDING + "size"]), rows.shape[1])
    weight[ids.long()] = rows
    plain = {key: tensor for key, tensor in text.items() if not key.startswith(TOKEN_EMBEDDING)}
    return {**plain, TOKEN_EMBEDDING + "weight": weight}
