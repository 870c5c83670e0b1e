"""Data sets of encoded clips on disk, and batches of them.

The order of batches depends only on the seed and the number of samples taken, so a run can be resumed exactly.
"""

from __future__ import annotations

import math
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from ..data.shards import INDEX, ShardDataset
from ..messages import one_line
from .shared_random import SharedRandom
from .stage import Batch, Items

BANDS = 4
"""Equal parts of the noise schedule whose losses are logged separately."""


class CachedPictures:
    """A cache over a data set of pictures in [-1, 1]: each is computed once and kept as 8-bit values."""

    def __init__(self, items: Items) -> None:
        self.items = items
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        if index not in self._kept:
            picture = torch.as_tensor(self.items[index])
            self._kept[index] = ((picture + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return self._kept[index].float() / 127.5 - 1


class Batches:
    """Endless shuffled batches of one data set.

    Attributes:
        position: samples taken so far by all processes; this is the whole state.

    Raises:
        ValueError: the data set is empty.
    """

    def __init__(
        self, items: Items, *, batch: int, seed: int, position: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if len(items) == 0:
            raise ValueError("the data set is empty; prepare the data first")
        self.items, self.batch, self.seed, self.position = items, batch, seed, position
        self.rank, self.world = rank, world
        self._epoch, self._order = -1, torch.empty(0)

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self.items))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.items), generator=generator)
        return int(self._order[place])

    def next(self) -> Batch:
        """Return this process's next batch, items stacked; items that are plain tensors become "pixels"."""
        first = self.position + self.rank * self.batch
        taken = [self.items[self._index(first + k)] for k in range(self.batch)]
        self.position += self.batch * self.world
        collated = default_collate(taken)
        return collated if isinstance(collated, dict) else {"pixels": collated}

    @property
    def epochs(self) -> float:
        """Number of passes over the data set so far, with fractions."""
        return self.position / len(self.items)


class BucketBatches:
    """Batches from several buckets, one bucket per batch: the one with the fewest epochs so far is next."""

    def __init__(self, buckets: list[Batches]) -> None:
        self.buckets = buckets

    @property
    def position(self) -> list[int]:
        """Samples taken so far from each bucket, by all processes."""
        return [bucket.position for bucket in self.buckets]

    @position.setter
    def position(self, positions: list[int]) -> None:
        for bucket, position in zip(self.buckets, positions, strict=True):
            bucket.position = position

    def next(self) -> Batch:
        """Return this process's next batch, as `Batches.next` does."""
        return min(self.buckets, key=lambda bucket: bucket.epochs).next()


def batches_of(items: Items, **options: Any) -> Batches | BucketBatches:
    """Return endless batches of a data set, bucketed or not; `options` are those of `Batches`."""
    if isinstance(items, Buckets):
        return BucketBatches([Batches(part, **options) for part in items.parts])
    return Batches(items, **options)


class Buckets:
    """A data set in buckets: one set per clip size. A batch comes from one bucket."""

    def __init__(self, parts: list[ShardDataset]) -> None:
        self.parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    @property
    def folder(self) -> Path:
        """Folder of the first bucket, for messages."""
        return self.parts[0].folder

    @property
    def index(self) -> dict[str, Any]:
        """Index of the first bucket, which stands for all of them."""
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
    """Open the data set in a folder; if its sub-folders are sets, each of them becomes a bucket."""
    if (folder / INDEX).exists():
        return _clips(folder)
    parts = [_clips(path.parent) for path in sorted(folder.glob(f"*/{INDEX}"))]
    return Buckets(parts) if parts else ShardDataset(folder)


def _clips(folder: Path) -> ShardDataset:
    """Open a set of clips.

    Raises:
        ValueError: it is empty, or its index does not give frames and frame rates.
    """
    items = ShardDataset(folder)
    frames, rates = items.index.get("frames"), items.index.get("fps")
    if len(items) == 0:
        raise ValueError(f"the data set in {one_line(folder)} is empty; prepare the data first")
    if not (
        isinstance(frames, int)
        and frames > 0
        and isinstance(rates, list)
        and rates
        and all(map(_is_rate, rates))
    ):
        raise ValueError(
            f"{one_line(folder / INDEX)} has frames {frames!r} and fps {rates!r}; expected a number of frames and a "
            "list of frame rates: encode the set again"
        )
    return items


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def first_bucket(items: VideoSet) -> ShardDataset:
    """Return the set itself, or its first bucket: clips of one size."""
    return items.parts[0] if isinstance(items, Buckets) else items


def caption_key(items: VideoSet) -> str:
    """Return the key of the clips' captions: "text" (encoded, `k 77 d`) or "tokens" (`k 77`).

    Raises:
        ValueError: the clips have neither.
    """
    held = first_bucket(items)[0]
    found = next((name for name in ("text", "tokens") if name in held), None)
    if found is None:
        raise ValueError(f"the clips of {items.folder} have no captions (text or tokens): prepare them again")
    return found


def empty_caption(items: VideoSet) -> Tensor:
    """Return the empty prompt in the form of the set's captions: encoded, `77 d`, or 77 tokens."""
    first = first_bucket(items)
    if caption_key(items) == "tokens":
        return first.empty_tokens
    return first.empty_text[0]


def draw_latents(batch: Batch, random: SharedRandom) -> Tensor:
    """Return the latents z_0 of a batch, `n f c h w` float32.

    They are drawn from the VAE's posterior, or are its mean where the set stores no standard deviation.
    """
    mean = batch["mean"]
    if "std" not in batch:
        return mean
    return mean + batch["std"] * random.normal(tuple(mean.shape))


def pick_captions(
    captions: Tensor, empty: Tensor, dropout: float, random: SharedRandom
) -> tuple[Tensor, Tensor]:
    """Return one random caption of each clip, or the empty prompt with probability `dropout`; and (n,) where it is.

    Args:
        captions: `n k 77` tokens or `n k 77 d` encoded, k captions of each clip.
        empty: the empty prompt in the same form, without the first two axes.
        dropout: text dropout for classifier-free guidance, in [0, 1].
        random: source of the draws.
    """
    count, choices = captions.shape[:2]
    picked = random.integers(choices, (count,))
    chosen = captions[torch.arange(count, device=captions.device), picked]
    dropped = random.uniform(count) < dropout
    return torch.where(dropped.view(-1, *[1] * empty.ndim), empty.to(chosen.dtype), chosen), dropped


def band_losses(losses: Tensor, timesteps: Tensor, steps: int) -> dict[str, Tensor]:
    """Return the mean loss within each quarter of the noise schedule, to log; NaN for a quarter without clips.

    Nothing here waits for a GPU, as a choice of quarters by their number of clips would.

    Args:
        losses: (n,), one loss per clip.
        timesteps: (n,), in [0, steps).
        steps: length of the noise schedule.
    """
    bands = (timesteps.long() * BANDS // steps).clamp(max=BANDS - 1)
    members = bands == torch.arange(BANDS, device=bands.device)[:, None]
    sums = torch.where(members, losses.detach(), 0).sum(dim=1)
    return {f"loss/band{k}": mean for k, mean in enumerate(sums / members.sum(dim=1))}
