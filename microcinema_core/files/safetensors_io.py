"""Safetensors files: written atomically, read with a one-sentence error for every kind of wrong file.

Nothing is unpickled. A file is judged by its bytes, not by its name.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .. import json_text
from ..messages import one_line, reason
from ..values import shown
from .atomic import atomic_write

HEADER_LIMIT = 100_000_000
"""Largest header in bytes that the safetensors format allows."""
SAVED_METADATA = "microcinema.metadata"
"""Key of a tensor with metadata as JSON bytes, as ComfyUI's ModelSave writes tensors but no metadata."""
LDM_PREFIX = "model.diffusion_model."
"""Prefix of the U-Net's keys in Stable Diffusion files, and in ours."""
LARGEST_WEIGHT = torch.finfo(torch.float16).max
"""The largest weight that is accepted: the host computes in float16 on most GPUs. A larger one is damage, such as a
changed bit of an exponent, and makes NaN of everything."""
Shapes = Mapping[str, tuple[int, ...]]
SIZES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
}
"""Bytes of an element by the format's names of dtypes; those of less than a byte are not listed."""


def read_header(path: str | os.PathLike[str]) -> dict[str, dict]:
    """Return the JSON header of a safetensors file without reading its tensors.

    If ComfyUI's ModelSave wrote the file, the metadata that it saved as a tensor is merged into the header.

    Raises:
        ValueError: the file is missing, empty, truncated, or not a safetensors file, or its header is malformed.
    """
    path = Path(path)
    name = one_line(path.name)
    if not path.is_file():
        raise ValueError(f"{name}: no such file: {one_line(str(path))}")
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            raise ValueError(f"{name}: the file holds {size} bytes, no weights: get it again.")
        _refuse_foreign_start(path, start)
        (length,) = struct.unpack("<Q", start)
        if size < 8 + length <= 8 + HEADER_LIMIT and stream.read(1) == b"{":
            raise ValueError(
                f"{name}: the file is cut short, {size:,} bytes are there and its header alone has {length:,}: get it "
                "again."
            )
        stream.seek(8)
        if length > min(size, HEADER_LIMIT):
            raise ValueError(f"{name}: {_looks_like(path)}, a safetensors file was expected.")
        header = _parse_header(path, stream.read(length))
        _check_entries(name, header, size, 8 + length)
        saved = header.get(SAVED_METADATA)
        if saved:
            start_, end = saved["data_offsets"]
            stream.seek(8 + length + start_)
            own = _saved_metadata(name, stream.read(end - start_))
            header["__metadata__"] = {**header.get("__metadata__", {}), **own}
    return header


def read_tensors(
    path: str | os.PathLike[str],
    *,
    header: Mapping[str, dict] | None = None,
    keep: Callable[[str], bool] | None = None,
    mapped: bool = False,
    largest: float = LARGEST_WEIGHT,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, on the CPU, and the metadata of a safetensors file.

    Of a file that ComfyUI's ModelSave wrote only the U-Net is returned, because its text encoder and VAE are under
    ComfyUI's keys.

    Args:
        path: the file.
        header: what `read_header` returned for it; None reads it.
        keep: tells of a key whether its tensor is wanted; None keeps all.
        mapped: let the tensors stay in the mapped file. Only for files that nobody writes to: a file that is
            overwritten while it is mapped changes the weights, or kills the process. Otherwise they are read.
        largest: the largest value that is accepted, of either sign.

    Raises:
        ValueError: as for `read_header`, or a tensor with values that are not finite or too large.
    """
    header = read_header(path) if header is None else header
    name = one_line(Path(path).name)
    own = SAVED_METADATA in header
    keys = [
        key
        for key in header
        if key != "__metadata__" and (keep is None or keep(key)) and (not own or key.startswith(LDM_PREFIX))
    ]
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in keys}
            if not mapped:
                tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{name}: damaged safetensors file ({reason(error)}): get it again.") from error
    for key, tensor in tensors.items():
        if not within(tensor, largest):
            what = f"values beyond {largest:g}" if within(tensor, torch.inf) else "NaN or infinite values"
            raise ValueError(f"{name}: {shown(key)} holds {what}: get or train the file again.")
    return tensors, dict(header.get("__metadata__", {}))


def within(tensor: Tensor, largest: float = LARGEST_WEIGHT) -> bool:
    """Return whether all values of a tensor are finite and none is larger, by its extremes, to which NaN spreads."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.dtype.itemsize == 1:  # fp8 has no extremes of its own
        tensor = tensor.float()
    extremes = [float(extreme) for extreme in torch.aminmax(tensor)]
    return all(math.isfinite(extreme) and abs(extreme) <= largest for extreme in extremes)


def fingerprint(path: Path) -> str:
    """Return what changes when a weight file is written again: its size, times, place on the disk and header.

    A file without a readable header is judged by the rest.
    """
    status = path.stat()
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        header = stream.read(min(length, HEADER_LIMIT)) if length <= status.st_size else b""
    digest = hashlib.sha256(start + header).hexdigest()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} {digest}"


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turn the errors of code that takes a file's tensors for granted into a sentence.

    Raises:
        ValueError: a tensor is absent, or of another shape; the message names the file. Other ValueErrors get its name.
    """
    name = one_line(path.name)
    try:
        yield
    except (LookupError, AttributeError, TypeError, ArithmeticError, RuntimeError) as error:
        said = f"{type(error).__name__}: {shown(str(error))}"
        raise ValueError(
            f"{name}: its tensors are not those of a whole file ({said}): get it again."
        ) from error
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(name) else f"{name}: {text}") from error


def metadata_tensor(metadata: Mapping[str, str]) -> Tensor:
    """Return metadata as a tensor of JSON bytes (uint8), from which `read_header` restores it."""
    return torch.frombuffer(bytearray(json.dumps(dict(metadata)).encode()), dtype=torch.uint8)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically, readable by all users."""
    with atomic_write(path) as part:
        save_file(tensors, part, metadata=metadata)
        part.chmod(0o644)  # safetensors makes it readable by the owner only


def _saved_metadata(name: str, data: bytes) -> dict[str, str]:
    try:
        found = json_text.loads(data)
    except ValueError as error:
        raise ValueError(f"{name}: the tensor {SAVED_METADATA} is unreadable: save it again.") from error
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def header_shapes(header: Mapping[str, dict]) -> dict[str, tuple[int, ...]]:
    """Return the tensors' shapes from a header."""
    return {key: tuple(value["shape"]) for key, value in header.items() if key != "__metadata__"}


def describe(shapes: Shapes) -> str:
    """Return the kind of model that these keys and shapes belong to, in words for a message."""
    if any(key.startswith(("lora_", "lora_unet")) or ".lora_" in key for key in shapes):
        return "a LoRA"
    if any("input_hint_block." in key or "controlnet_cond_embedding." in key for key in shapes):
        return "a ControlNet"
    if any(".motion_modules." in key for key in shapes):
        return "a motion module, for models/animatediff_models and the node MicroCinema Motion Loader"
    if any(".temopral_conv." in key or ".temp_convs." in key for key in shapes):
        return "a video model with a U-Net of its own, for the node MicroCinema Crafter Loader"
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
            f"{one_line(path.name)}: this is a PyTorch pickle, which can run code as it opens and is never read; "
            "a safetensors file was expected: convert it first."
        )
    if start.startswith(b"GGUF"):
        raise ValueError(f"{one_line(path.name)}: this is a GGUF file, a safetensors file was expected.")


def _parse_header(path: Path, raw: bytes) -> dict[str, dict]:
    name = one_line(path.name)
    try:
        header = json_text.loads(raw)
    except ValueError as error:
        raise ValueError(f"{name}: {_looks_like(path)}, a safetensors file was expected.") from error
    if not isinstance(header, dict):
        raise ValueError(f"{name}: its header is no safetensors header, a safetensors file was expected.")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(
            f"{name}: its metadata are {shown(metadata)}, texts by name were expected: get the file again."
        )
    return header


def _check_entries(name: str, header: Mapping[str, Any], size: int, data_start: int) -> None:
    """Check every tensor's entry in a header: its fields, their types, and that its bytes are in the file."""
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        fault = _fault_of(entry)
        if fault:
            raise ValueError(f"{name}: the header's entry {shown(key)} {fault}: get the file again.")
    needed = data_start + max(
        (entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0
    )
    if size < needed:
        raise ValueError(
            f"{name}: the file is cut short, {size:,} of {needed:,} bytes are there: get it again."
        )


def _fault_of(entry: Any) -> str:
    """Return what is wrong with a tensor's entry in a header, or an empty text."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        return "lacks dtype, shape or data_offsets"
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or not isinstance(dtype, str):
        return f"has shape {shown(shape)}, data_offsets {shown(offsets)} and dtype {shown(dtype)}"
    start, end = offsets
    elements = 1
    for side in shape:
        elements *= side
    if dtype in SIZES and end - start != elements * SIZES[dtype]:
        return f"has {end - start} bytes for the shape {shown(shape)} of {dtype}"
    return "" if start <= end else f"has reversed data_offsets {shown(offsets)}"


def _counts(values: Any) -> bool:
    """Return whether a value is a short list of whole numbers from 0 up."""
    return (
        isinstance(values, list)
        and len(values) <= 64
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63 for n in values)
    )


def _looks_like(path: Path) -> str:
    with path.open("rb") as stream:
        sample = stream.read(512)
    text = all(byte in (9, 10, 12, 13) or byte >= 32 for byte in sample)
    return "this is a text file under another name" if text else "this is no safetensors file"
