"""Encoded clips on disk: safetensors shards beside an `index.json`, and a memory-mapped reader."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

INDEX = "index.json"


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def write_json(path: Path, value: Any) -> None:
    """At once or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)


def write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    """At once or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary)
    os.replace(temporary, path)


def shard_length(path: Path) -> int:
    """How many clips a shard holds."""
    with safe_open(path, "pt") as file:
        return file.get_slice("mean").get_shape()[0]


class ShardDataset(Dataset[dict[str, Tensor]]):
    """The clips of one folder, read where they lie.

    Items: `mean` and, where stored, `std` float32 (frames, c, h, w), the VAE's posterior; `tokens` int32
    (k, 77), k captions of the clip, one to be picked; `fps` float32 (); `group` int32 (), into
    `index["motion_keys"]`. `index["empty_tokens"]` is the empty prompt.

    Raises:
        ValueError: the folder has no index, or its shards do not hold what the index says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / INDEX).exists():
            command = f"python -m microcinema_core.data.encode {self.folder.name}"
            raise ValueError(f"{self.folder / INDEX} is missing; run: {command}")
        self.index: dict[str, Any] = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        lengths = self.index["shards"]
        missing = [n for n in range(len(lengths)) if not shard_path(self.folder, n).exists()]
        if missing:
            raise ValueError(f"{self.folder} lacks shards {missing[:5]} of {len(lengths)}; encode it again")
        self._ends = list(accumulate(lengths))
        self._open: dict[int, Any] = {}

    @property
    def empty_tokens(self) -> Tensor:
        """int32 (77,)."""
        return torch.tensor(self.index["empty_tokens"], dtype=torch.int32)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        row = index - (self._ends[number - 1] if number else 0)
        file = self._shard(number)
        item = {key: file.get_slice(key)[row : row + 1][0] for key in file.keys()}  # noqa: SIM118
        return {key: value.float() if value.dtype == torch.float16 else value for key, value in item.items()}

    def _shard(self, number: int) -> Any:
        if number not in self._open:
            self._open[number] = safe_open(shard_path(self.folder, number), "pt")
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}
