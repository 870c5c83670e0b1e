"""Tar shards of WebDataset: members of one name are one sample, `.txt` or `.json` beside the video its caption.

Only names and captions are read by the scan; a video's bytes are read where they lie in the tar.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .report import Unusable
from .tables import TEXT_COLUMNS

TEXT_LIMIT = 1 << 20


@dataclass(frozen=True)
class Sample:
    """A video within a tar: member's name, bytes and captions."""

    name: str
    offset: int
    size: int
    captions: tuple[str, ...]


def samples(tar: Path) -> Iterator[Sample]:
    """The videos of an uncompressed tar, in its order.

    Raises:
        Unusable: no tar, or cut short; samples before the damage were given.
    """
    try:
        with tarfile.open(tar, "r:") as file:
            held: dict[str, Any] = {}
            for member in file:
                if not member.isfile():
                    continue
                key, _, kind = member.name.partition(".") if "/" not in member.name else _split(member.name)
                if held.get("key") != key:
                    yield from _sample(held)
                    held = {"key": key, "texts": []}
                _take(file, member, kind.lower(), held)
            yield from _sample(held)
    except tarfile.TarError as error:
        raise Unusable(f"{tar.name} is no whole tar ({error}); get it again") from error


def _split(name: str) -> tuple[str, str, str]:
    folder, _, last = name.rpartition("/")
    key, dot, kind = last.partition(".")
    return f"{folder}/{key}", dot, kind


def _take(file: tarfile.TarFile, member: tarfile.TarInfo, kind: str, held: dict[str, Any]) -> None:
    from .sources import SUFFIXES, captions_of

    if f".{kind.rpartition('.')[2]}" in SUFFIXES:
        held["video"] = member
    elif kind in ("txt", "json", "caption") and member.size <= TEXT_LIMIT:
        stream = file.extractfile(member)
        text = stream.read().decode("utf-8", errors="replace") if stream else ""
        texts = _json_captions(text) if kind == "json" else [text]
        held["texts"] += [line for one in texts for line in captions_of(one)]


def _json_captions(text: str) -> list[str]:
    try:
        fields = json.loads(text)
    except ValueError:
        return []
    fields = fields if isinstance(fields, dict) else {}
    value: Any = next((fields[name] for name in TEXT_COLUMNS if fields.get(name)), [])
    return [str(one) for one in (value if isinstance(value, list) else [value])]


def _sample(held: dict[str, Any]) -> Iterator[Sample]:
    if member := held.get("video"):
        captions = tuple(dict.fromkeys(held["texts"]))
        yield Sample(member.name, member.offset_data, member.size, captions)
