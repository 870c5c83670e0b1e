"""Encoded sets on disk as a stage takes them: one size of clips, or a folder of buckets."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.shards import INDEX, ShardDataset
from .stage import Batch


class Buckets:
    """Sets of clips of different sizes; a batch comes from one of them (feed.py)."""

    def __init__(self, parts: list[ShardDataset]) -> None:
        self.parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    @property
    def folder(self) -> Path:
        return self.parts[0].folder

    @property
    def index(self) -> dict[str, Any]:
        return self.parts[0].index

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Batch:
        for part, end in zip(self.parts, self._ends, strict=True):
            if index < end:
                return part[index - end + len(part)]
        raise IndexError(f"clip {index} of {len(self)}")


VideoSet = ShardDataset | Buckets


def open_set(folder: Path) -> VideoSet:
    """The set in a folder; one whose sub-folders are sets, by name in order, is one of buckets."""
    if (folder / INDEX).exists():
        return ShardDataset(folder)
    parts = [ShardDataset(path.parent) for path in sorted(folder.glob(f"*/{INDEX}"))]
    return Buckets(parts) if parts else ShardDataset(folder)


def alike(items: VideoSet) -> ShardDataset:
    """Clips of one size: the set itself, or its first bucket."""
    return items.parts[0] if isinstance(items, Buckets) else items


def captions_of(items: VideoSet) -> str:
    """What the clips are captioned with: "text" (encoded, k 77 d) or "tokens" (k 77)."""
    held = alike(items)[0]
    found = next((name for name in ("text", "tokens") if name in held), None)
    if found is None:
        raise ValueError(f"the clips of {items.folder} have no captions (text or tokens): prepare them again")
    return found


def empty_caption(items: VideoSet) -> Tensor:
    """The empty prompt in the form of the set's captions: (77, d), or (77,) tokens."""
    first = alike(items)
    if captions_of(items) == "tokens":
        return first.empty_tokens
    return first.empty_text[0]
