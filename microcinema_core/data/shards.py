"""Encoded clips on disk: safetensors shards beside an `index.json`, and a memory-mapped reader."""

from __future__ import annotations

import errno
import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from ..files.atomic import atomic_write

INDEX = "index.json"
EMPTY = "empty.safetensors"
MOST_OPEN = 256
"""Shards that a reader holds open; a process may have 1024 files."""


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def write_json(path: Path, value: Any) -> None:
    """At once or not at all."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=1), encoding="utf-8")


def write_shard(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """At once or not at all; OSError where the disk is full."""
    try:
        with atomic_write(path) as part:
            save_file(tensors, part, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:  # it hides the system's own
        full = "No space left" in str(error) or "os error 28" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def shard_length(path: Path) -> int:
    """How many clips a shard holds."""
    with safe_open(path, "pt") as file:
        return file.get_slice("mean").get_shape()[0]


class ShardDataset(Dataset[dict[str, Tensor]]):
    """The clips of one folder, read where they lie.

    Items: `mean` and, where stored, `std` float32 (frames, c, h, w), the VAE's posterior; `fps` float32 ().
    Sets of the mini world: `tokens` int32 (k, 77), k captions of the clip, one to be picked; `group` int32 (), into
    `index["motion_keys"]`; `index["empty_tokens"]` is the empty prompt.
    Sets of a user's videos (`data.prepare`): latents in model space; `text` float32 (k, 77, d), the contexts of k
    captions; `group` int64 (), a hash of the source; `empty_text` is the empty prompt's context.

    Raises:
        ValueError: the folder has no index, or its shards do not hold what the index says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / INDEX).exists():
            raise ValueError(
                f"{self.folder / INDEX} is missing: a set was expected, as data.prepare writes them of your videos "
                "(OUT/base, OUT/tsr and, if a video was kept for testing, OUT/base-test, OUT/tsr-test), "
                f"or `python -m mini.world.encode {self.folder.name}` for the mini world"
            )
        self.index: dict[str, Any] = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        lengths = self.index["shards"]
        missing = [n for n in range(len(lengths)) if not self.path(n).exists()]
        if missing:
            raise ValueError(f"{self.folder} lacks shards {missing[:5]} of {len(lengths)}; encode it again")
        self._ends = list(accumulate(lengths))
        self._open: OrderedDict[int, Any] = OrderedDict()

    def path(self, number: int) -> Path:
        """Where a shard lies: by the name that the index gives it, else by its number."""
        names = self.index.get("files")
        return self.folder / names[number] if names else shard_path(self.folder, number)

    @property
    def empty_tokens(self) -> Tensor:
        """int32 (77,)."""
        return torch.tensor(self.index["empty_tokens"], dtype=torch.int32)

    @property
    def empty_text(self) -> Tensor:
        """float32 (1, 77, d), of a set that holds contexts."""
        return load_file(str(self.folder / EMPTY))["text"].float()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        row = index - (self._ends[number - 1] if number else 0)
        file = self._shard(number)
        item = {key: file.get_slice(key)[row : row + 1][0] for key in file.keys() if key != "text"}  # noqa: SIM118
        if "caption" in item:  # a shard holds each context once; this says which ones are the clip's
            contexts = file.get_slice("text")
            item["text"] = torch.cat([contexts[place : place + 1] for place in item.pop("caption").tolist()])
        return {key: value.float() if value.dtype == torch.float16 else value for key, value in item.items()}

    def _shard(self, number: int) -> Any:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= MOST_OPEN:
            self._open.popitem(last=False)
        self._open[number] = safe_open(self.path(number), "pt")
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}
