"""Safetensors files: written atomically, read with a one-sentence error for every kind of wrong file.

Nothing is unpickled. A file is judged by its bytes, not by its name.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .atomic import atomic_write

HEADER_LIMIT = 100_000_000
"""Largest header in bytes that the safetensors format allows."""
SAVED_METADATA = "microcinema.metadata"
"""Key of a tensor with metadata as JSON bytes, as ComfyUI's ModelSave writes tensors but no metadata."""
LDM_PREFIX = "model.diffusion_model."
"""Prefix of the U-Net's keys in Stable Diffusion files, and in ours."""
Shapes = Mapping[str, tuple[int, ...]]


def read_header(path: str | os.PathLike[str]) -> dict[str, dict]:
    """Return the JSON header of a safetensors file without reading its tensors.

    If ComfyUI's ModelSave wrote the file, the metadata that it saved as a tensor is merged into the header.

    Raises:
        ValueError: the file is missing, empty, truncated, or not a safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.name}: no such file: {path}")
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            raise ValueError(f"{path.name}: the file holds {size} bytes, no weights: get it again.")
        _refuse_foreign_start(path, start)
        (length,) = struct.unpack("<Q", start)
        if length > min(size, HEADER_LIMIT):
            raise ValueError(f"{path.name}: {_looks_like(path)}, a safetensors file was expected.")
        header = _parse_header(path, stream.read(length))
        saved = header.get(SAVED_METADATA)
        if saved:
            start_, end = saved["data_offsets"]
            stream.seek(8 + length + start_)
            own = _saved_metadata(path, stream.read(end - start_))
            header["__metadata__"] = {**header.get("__metadata__", {}), **own}
    _refuse_truncated(path, header, size, 8 + length)
    return header


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, on the CPU, and the metadata of a safetensors file; errors as for `read_header`.

    Of a file that ComfyUI's ModelSave wrote only the U-Net is returned, because its text encoder and VAE are under
    ComfyUI's keys.
    """
    header = read_header(path)
    try:
        tensors = load_file(str(path), device="cpu")
    except SafetensorError as error:
        raise ValueError(f"{Path(path).name}: damaged safetensors file ({error}): get it again.") from error
    if SAVED_METADATA in tensors:
        tensors = {key: value for key, value in tensors.items() if key.startswith(LDM_PREFIX)}
    return tensors, dict(header.get("__metadata__", {}))


def metadata_tensor(metadata: Mapping[str, str]) -> Tensor:
    """Return metadata as a tensor of JSON bytes (uint8), from which `read_header` restores it."""
    return torch.frombuffer(bytearray(json.dumps(dict(metadata)).encode()), dtype=torch.uint8)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically, readable by all users."""
    with atomic_write(path) as part:
        save_file(tensors, part, metadata=metadata)
        part.chmod(0o644)  # safetensors makes it readable by the owner only


def _saved_metadata(path: Path, data: bytes) -> dict[str, str]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path.name}: the tensor {SAVED_METADATA} is unreadable: save it again.") from error
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def header_shapes(header: Mapping[str, dict]) -> dict[str, tuple[int, ...]]:
    """Return the tensors' shapes from a header."""
    return {key: tuple(value["shape"]) for key, value in header.items() if key != "__metadata__"}


def describe(shapes: Shapes) -> str:
    """Return the kind of model that these keys and shapes belong to, in words for a message."""
    if any(key.startswith(("lora_", "lora_unet")) or ".lora_" in key for key in shapes):
        return "a LoRA"
    if (
        any(key.startswith("conditioner.embedders.1.") for key in shapes)
        or f"{LDM_PREFIX}label_emb.0.0.weight" in shapes
    ):
        return "a Stable Diffusion XL checkpoint"
    if any(key.startswith(f"{LDM_PREFIX}joint_blocks.") for key in shapes):
        return "a Stable Diffusion 3 checkpoint"
    if any("double_blocks." in key for key in shapes):
        return "a Flux checkpoint"
    width = _context_width(shapes)
    if width in (768, 1024):
        return f"a Stable Diffusion {'1.x' if width == 768 else '2.x'} checkpoint"
    if any(key.startswith("down_blocks.") for key in shapes):
        return "a network in diffusers' layout"
    if any(key.startswith(("decoder.conv_in", "first_stage_model.decoder")) for key in shapes):
        return "a VAE"
    if any("text_model.encoder.layers" in key for key in shapes):
        return "a text encoder"
    return f"a file of {len(shapes)} tensors of another kind"


def _context_width(shapes: Shapes) -> int | None:
    for key, shape in shapes.items():
        if key.endswith("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"):
            return shape[1]
    return None


def _refuse_foreign_start(path: Path, start: bytes) -> None:
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise ValueError(
            f"{path.name}: this is a PyTorch pickle, which can run code as it opens and is never read; "
            "a safetensors file was expected: convert it first."
        )
    if start.startswith(b"GGUF"):
        raise ValueError(f"{path.name}: this is a GGUF file, a safetensors file was expected.")


def _parse_header(path: Path, raw: bytes) -> dict[str, dict]:
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"{path.name}: {_looks_like(path)}, a safetensors file was expected.") from error
    if not isinstance(header, dict):
        raise ValueError(
            f"{path.name}: its header is no safetensors header, a safetensors file was expected."
        )
    return header


def _refuse_truncated(path: Path, header: Mapping[str, dict], size: int, data_start: int) -> None:
    ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
    needed = data_start + max(ends, default=0)
    if size < needed:
        raise ValueError(
            f"{path.name}: the file is cut short, {size:,} of {needed:,} bytes are there: get it again."
        )


def _looks_like(path: Path) -> str:
    with path.open("rb") as stream:
        sample = stream.read(512)
    text = all(byte in (9, 10, 12, 13) or byte >= 32 for byte in sample)
    return "this is a text file under another name" if text else "this is no safetensors file"
