"""Encoded clips on disk: safetensors shards with an `index.json`, and a memory-mapped reader."""

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

from .. import json_text
from ..files.atomic import atomic_write
from ..messages import one_line, reason

INDEX = "index.json"
EMPTY_PROMPT = "empty.safetensors"
MAX_OPEN_SHARDS = 256
"""Shards that a reader keeps open; a process is usually allowed 1024 files."""


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a numbered shard, such as `00012.safetensors`."""
    return folder / f"{number:05d}.safetensors"


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=1), encoding="utf-8")


def write_shard(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically.

    Raises:
        OSError: the file cannot be written; `errno` tells a full disk from other errors.
    """
    try:
        with atomic_write(path) as part:
            save_file(tensors, part, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:  # safetensors hides the system's OSError in it
        full = "No space left" in str(error) or "os error 28" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def shard_length(path: Path) -> int:
    """Return the number of clips in a shard."""
    with safe_open(path, "pt") as file:
        return file.get_slice("mean").get_shape()[0]


def read_index(path: Path) -> dict[str, Any]:
    """Read a set's index, and check what every reader needs of it.

    Raises:
        ValueError: it is damaged; the message names it.
    """
    try:
        index = json_text.loads(path.read_text(encoding="utf-8"))
        lengths, names = index["shards"], index.get("files")
        whole = all(isinstance(length, int) and length >= 0 for length in lengths) and (
            names is None or (len(names) == len(lengths) and all(isinstance(name, str) for name in names))
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(
            f"{one_line(path)} is damaged: a JSON object with a list `shards` of numbers of clips was expected; run "
            "the command that wrote the set again"
        )
    return index


class MissingSetError(ValueError):
    """A folder that holds no set; `folder` is its path."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


class ShardDataset(Dataset[dict[str, Tensor]]):
    """The clips of one folder of shards, read on demand through memory maps.

    Every item has the VAE's posterior, `mean` and, where stored, `std`, as float32 `frames c h w`, and `fps`, a float32
    scalar. The rest depends on the kind of set:

    - Sets with tokens: `tokens`, int32 `k 77`, holds k captions of the clip to pick from. `group`, an int32
      scalar, is an index into `index["motion_keys"]`. `index["empty_tokens"]` is the empty prompt.
    - Sets with contexts, as `data.prepare` writes them: latents are in model space. `text`, float32 `k 77 d`, holds
      the contexts of k captions. `group`, an int64 scalar, is a hash of the source. `empty_text` is the empty prompt's
      context. With `--clip-vision`, `vision`, float32 `l d`, holds CLIP vision's features of the centre frame, and
      `grey` those of mid grey.

    Raises:
        MissingSetError: the folder has no index.
        ValueError: the index is damaged, or shards that it names are missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / INDEX).exists():
            raise MissingSetError(
                f"{one_line(self.folder / INDEX)} is missing: a set was expected, as data.prepare writes from your "
                "videos (OUT/base, OUT/tsr and, if a video was held out, OUT/base-test, OUT/tsr-test)",
                self.folder,
            )
        self.index: dict[str, Any] = read_index(self.folder / INDEX)
        lengths = self.index["shards"]
        missing = [n for n in range(len(lengths)) if not self.path(n).exists()]
        if missing:
            raise ValueError(
                f"{one_line(self.folder)} lacks shards {missing[:5]} of {len(lengths)}; encode it again"
            )
        self._ends = list(accumulate(lengths))
        self._open: OrderedDict[int, Any] = OrderedDict()

    def path(self, number: int) -> Path:
        """Return a shard's path: the index may name it, else its number does."""
        names = self.index.get("files")
        return self.folder / names[number] if names else shard_path(self.folder, number)

    @property
    def empty_tokens(self) -> Tensor:
        """The empty prompt's tokens, int32 `77`, of a set that holds tokens."""
        if "empty_tokens" not in self.index:
            raise ValueError(f"{one_line(self.folder / INDEX)} lacks `empty_tokens`; encode the set again")
        return torch.tensor(self.index["empty_tokens"], dtype=torch.int32)

    @property
    def empty_text(self) -> Tensor:
        """The empty prompt's context, float32 `1 77 d`, of a set that holds contexts."""
        return self._empty("text", "the empty prompt")

    @property
    def grey(self) -> Tensor:
        """CLIP vision's features of mid grey, float32 `l d`, of a set that holds features of pictures."""
        return self._empty("grey", "CLIP vision's features of mid grey")

    def shapes(self, key: str) -> set[tuple[int, ...] | None]:
        """Return the shapes that a clip's tensor of this name has in the shards; None for shards without it."""
        found: set[tuple[int, ...] | None] = set()
        for number in range(len(self.index["shards"])):
            file = self._shard(number)
            held = key in file.keys()  # noqa: SIM118
            found.add(tuple(file.get_slice(key).get_shape()[1:]) if held else None)
        return found

    def _empty(self, key: str, what: str) -> Tensor:
        path = self.folder / EMPTY_PROMPT
        try:
            return load_file(str(path))[key].float()
        except (OSError, SafetensorError, KeyError) as error:
            raise ValueError(
                f"{one_line(path)} cannot be read ({reason(error)}); it holds {what}: encode the set again"
            ) from error

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        row = index - (self._ends[number - 1] if number else 0)
        try:
            return self._item(number, row)
        except (SafetensorError, OSError, KeyError, IndexError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{one_line(self.path(number))}: clip {row} cannot be read ({reason(error)}); encode the set again"
            ) from error

    def _item(self, number: int, row: int) -> dict[str, Tensor]:
        """Return a clip of a shard; what the file lacks or what is damaged in it raises."""
        file = self._shard(number)
        item = {key: file.get_slice(key)[row : row + 1][0] for key in file.keys() if key != "text"}  # noqa: SIM118
        if "caption" in item:  # a shard stores each context once; `caption` indexes the clip's own
            contexts = file.get_slice("text")
            item["text"] = torch.cat([contexts[place : place + 1] for place in item.pop("caption").tolist()])
        return {key: value.float() if value.dtype == torch.float16 else value for key, value in item.items()}

    def _shard(self, number: int) -> Any:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= MAX_OPEN_SHARDS:
            self._open.popitem(last=False)
        self._open[number] = safe_open(self.path(number), "pt")
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}
