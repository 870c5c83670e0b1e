"""Faults put into a good file: `damaged` takes a file and a list of faults, and writes what a reader then gets.

Each fault is `{"do": ..., "at": ..., "value": ...}`: what is changed, its place, and what is put there. They act in the
order of `_LAYERS`: tensors and metadata first, then the header as JSON, then bytes.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from ..values import expanded

Fault = dict[str, Any]
ABSENT = "(absent)"
"""A fault's value that removes an entry."""
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "a row more": lambda t: torch.cat([t, t[:1]]) if t.ndim else t.expand(2),
    "scalar": lambda t: t.flatten()[:1].reshape(()) if t.ndim else t.expand(2),
    "empty": lambda t: t.flatten()[:0],
    "flat": lambda t: t.flatten() if t.ndim > 1 else t.reshape(-1, 1),
    "nested": lambda t: t.reshape(*t.shape, 1),
    "transposed": lambda t: torch.cat([t, t]).T if t.ndim == 2 else t.reshape(1, *t.shape),
}
DTYPES = {name: getattr(torch, name) for name in ("int64", "int32", "uint8", "bool")}
FLOATS = {name: getattr(torch, name) for name in ("float64", "bfloat16", "float8_e4m3fn", "float8_e5m2")}
FILLED = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}
HEADERS: dict[str, bytes] = {
    "deep list": b"[" * 99999,
    "deep objects": b'{"a":' * 99999,
    "deep metadata": b'{"__metadata__":' + b"[" * 99999 + b"}",
    "not UTF-8": b'{"\xff\xfe": 1}',
    "a list": b"[1]",
    "a number": b"3",
    "a text": b'"weights"',
    "null": b"null",
    "NaN": b"NaN",
    "nothing": b"",
    "spaces": b" " * 64,
    "no end": b'{"a": {"dtype"',
    "no tensors": b"{}",
}
WHOLES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "seven bytes": lambda: b"\0" * 7,
    "zeros": lambda: b"\0" * 4096,
    "text": lambda: b"<html>moved</html>",
    "Git LFS pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "zip": lambda: _zip(),
    "pickle": lambda: pickle.dumps({"weight": [1, 2]}),
    "torch pickle": lambda: _torch_pickle(),
    "GGUF": lambda: b"GGUF\3\0\0\0" + b"\0" * 64,
    "picture": lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 64,
    "huge length": lambda: struct.pack("<Q", 2**64 - 1) + b"{}",
    "length of a terabyte": lambda: struct.pack("<Q", 2**40) + b"{}",
    "folder": lambda: b"",
}
"""Other kinds of files under the name of a weight file."""


def damaged(good: Path, faults: list[Fault], target: Path) -> Path:
    """Write a damaged copy of a file or folder as `target` and return it."""
    faults = [{**fault, "value": expanded(fault["value"])} for fault in faults]
    if target.is_dir():
        shutil.rmtree(target)
    elif target.exists():
        target.unlink()
    if good.is_dir():
        return _damaged_folder(good, faults, target)
    others = [fault for fault in faults if fault["do"] == "whole"]
    if others:
        name = others[0]["value"]
        if name == "folder":
            target.mkdir()
        else:
            target.write_bytes(WHOLES[name]())
        return target
    data = good.read_bytes()
    for layer in (_tensors_changed, _header_changed, _bytes_changed):
        data = layer(data, faults)
    target.write_bytes(data)
    return target


def _damaged_folder(good: Path, faults: list[Fault], target: Path) -> Path:
    """Damage a folder: its one weight file, or its settings as a text."""
    shutil.copytree(good, target)
    weights = target / "unet" / "diffusion_pytorch_model.safetensors"
    settings = target / "scheduler" / "scheduler_config.json"
    of_file = [fault for fault in faults if not fault["do"].startswith("folder")]
    if of_file:
        damaged(good / "unet" / weights.name, of_file, weights)
    for fault in faults:
        if fault["do"] == "folder settings":
            settings.write_text(fault["value"], encoding="utf-8", errors="surrogatepass")
        if fault["do"] == "folder without":
            shutil.rmtree(target / fault["at"])
    return target


def _tensors_changed(data: bytes, faults: list[Fault]) -> bytes:
    mine = [fault for do in _INSIDE for fault in faults if fault["do"] == do]
    if not mine:
        return data
    length = struct.unpack("<Q", data[:8])[0]
    metadata = dict(json.loads(data[8 : 8 + length]).get("__metadata__", {}))
    tensors = load(data)
    for fault in mine:
        _INSIDE[fault["do"]](tensors, metadata, fault)
    made = save({key: value.contiguous().clone() for key, value in tensors.items()})
    return _with_header(made, lambda header: {"__metadata__": metadata, **header} if metadata else header)


def _change_said(tensors: dict[str, Tensor], metadata: dict[str, Any], fault: Fault) -> None:
    metadata.pop(fault["at"], None)
    if fault["value"] != ABSENT:
        metadata[fault["at"]] = fault["value"]


def _change_config(tensors: dict[str, Tensor], metadata: dict[str, Any], fault: Fault) -> None:
    configs = json.loads(metadata["microcinema.config"])
    *path, last = fault["at"]
    inside = configs
    for name in path:
        if inside.get(name) is None:
            inside[name] = {}
        inside = inside[name]
    inside.pop(last, None)
    if fault["value"] != ABSENT:
        inside[last] = fault["value"]
    metadata["microcinema.config"] = json.dumps(configs)


def _drop_tensor(tensors: dict[str, Tensor], metadata: dict[str, Any], fault: Fault) -> None:
    del tensors[fault["at"]]


def _add_tensor(tensors: dict[str, Tensor], metadata: dict[str, Any], fault: Fault) -> None:
    tensors[fault["at"]] = torch.zeros(2)


def _shape_tensor(tensors: dict[str, Tensor], metadata: dict[str, Any], fault: Fault) -> None:
    tensors[fault["at"]] = SHAPES[fault["value"]](tensors[fault["at"]])


def _type_tensor(tensors: dict[str, Tensor], metadata: dict[str, Any], fault: Fault) -> None:
    tensors[fault["at"]] = tensors[fault["at"]].float().to({**DTYPES, **FLOATS}[fault["value"]])


def _fill_tensor(tensors: dict[str, Tensor], metadata: dict[str, Any], fault: Fault) -> None:
    spoilt = tensors[fault["at"]].clone()
    spoilt.view(-1)[-1] = FILLED[fault["value"]]
    tensors[fault["at"]] = spoilt


_INSIDE: dict[str, Callable[[dict[str, Tensor], dict[str, Any], Fault], None]] = {
    "configuration": _change_config,
    "metadata entry": _change_said,
    "tensor absent": _drop_tensor,
    "tensor added": _add_tensor,
    "tensor's shape": _shape_tensor,
    "tensor's dtype": _type_tensor,
    "tensor's values": _fill_tensor,
}


def _with_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Return a file with another header: what `change` makes of it, or the bytes that it returns."""
    length = struct.unpack("<Q", data[:8])[0]
    made = change(json.loads(data[8 : 8 + length]))
    text = made if isinstance(made, bytes) else json.dumps(made).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _header_changed(data: bytes, faults: list[Fault]) -> bytes:
    for fault in faults:
        if fault["do"] == "header":
            data = _with_header(data, lambda _, fault=fault: HEADERS[fault["value"]])  # type: ignore[misc]
        elif fault["do"] == "whole metadata":
            data = _with_header(data, lambda header, fault=fault: {**header, "__metadata__": fault["value"]})  # type: ignore[misc]
        elif fault["do"] == "header overlap":
            data = _with_header(data, lambda header, fault=fault: _overlapping(header, fault["at"]))  # type: ignore[misc]
        elif fault["do"] == "header entry":
            data = _with_header(data, lambda header, fault=fault: _other_entry(header, fault))  # type: ignore[misc]
    return data


def _other_entry(header: dict[str, Any], fault: Fault) -> dict[str, Any]:
    key, *name = fault["at"]
    if not name:
        header[key] = fault["value"]
        return header
    entry = header[key]
    if fault["value"] == ABSENT:
        del entry[name[0]]
    else:
        entry[name[0]] = fault["value"]
    return header


def _overlapping(header: dict[str, Any], key: str) -> dict[str, Any]:
    """Move a tensor's bytes to the beginning, where another's are."""
    start, end = header[key]["data_offsets"]
    header[key]["data_offsets"] = [0, end - start]
    return header


def _bytes_changed(data: bytes, faults: list[Fault]) -> bytes:
    for fault in faults:
        if fault["do"] == "cut":
            data = data[: int(len(data) * fault["value"])]
        elif fault["do"] == "appended":
            data += b"\0" * fault["value"]
        elif fault["do"] == "length":
            data = struct.pack("<Q", fault["value"]) + data[8:]
        elif fault["do"] == "byte":
            place = int(len(data) * fault["at"])
            data = data[:place] + bytes([fault["value"]]) + data[place + 1 :]
        elif fault["do"] == "header byte":
            length = struct.unpack("<Q", data[:8])[0]
            place = 8 + int(length * fault["at"])
            data = data[:place] + bytes([fault["value"]]) + data[place + 1 :]
    return data


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("weights.txt", "1")
    return stream.getvalue()


def _torch_pickle() -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, stream)
    return stream.getvalue()
