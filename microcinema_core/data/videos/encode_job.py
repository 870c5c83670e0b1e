"""The second job that is done unit by unit: latents and contexts of the clips that are kept, as shards of sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..shards import write_json, write_shard
from .decode import frames_at
from .encoders import Encoders
from .jobs import VERSION, Row, ScoreJob, Work
from .plan import Unit, key_of, parse_sizes, shard_of
from .report import Line, Unusable, write_lines
from .sources import Video
from .stable_diffusion import load_networks
from .table import Limits, is_kept, read_rows


@dataclass(frozen=True)
class EncodeJob:
    """Encode what is kept: one shard a unit in each set's folder, `ROLE[-test]/WIDTHxHEIGHT`.

    digest: the checkpoint's content. captions: contexts a clip. test: see `plan.split_bound`.
    """

    out: Path
    scores: ScoreJob
    limits: Limits
    checkpoint: Path
    digest: str
    tokenizer: Path
    captions: int = 1
    test: float = 0.0
    device: str = "cpu"
    dtype: str = "fp32"
    batch_frames: int = 16

    @property
    def key(self) -> str:
        """Of everything that a latent or a context depends on, beside the clip itself."""
        geometry = self.scores.geometry
        return key_of([VERSION, self.digest, self.captions, self.dtype, asdict(geometry)])

    def wanted(self, unit: Unit) -> dict[str, list[Row]]:
        """The kept clips of a unit by set; a set's name is its folder below `out`."""
        sets: dict[str, list[Row]] = {}
        for row in read_rows(self.scores.path(unit)):
            if is_kept(row, self.limits):
                split = "-test" if shard_of(row["group"]) < self.test else ""
                sets.setdefault(f"{row['role']}{split}/{row['bucket']}", []).append(row)
        return sets

    def path(self, unit: Unit, name: str) -> Path:
        return self.out / name / f"{unit.name}.safetensors"

    def report(self, unit: Unit) -> Path:
        return self.out / "encoded" / f"{unit.name}.jsonl"

    def done(self, unit: Unit) -> bool:
        return all(
            held_clips(self.path(unit, name), self.key) == [row["clip_id"] for row in rows]
            for name, rows in self.wanted(unit).items()
        )

    def start(self) -> Work:
        encoders = Encoders(
            load_networks(self.checkpoint), self.tokenizer, device=self.device, dtype=self.dtype
        )

        def work(unit: Unit) -> None:
            lines: list[Line] = []
            for name, rows in self.wanted(unit).items():
                path = self.path(unit, name)
                if held_clips(path, self.key) != [row["clip_id"] for row in rows]:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    lines += self._write(path, rows, unit, encoders)
            write_lines(self.report(unit), lines)

        return work

    def _write(self, path: Path, rows: Sequence[Row], unit: Unit, encoders: Encoders) -> list[Line]:
        """One shard of what can be had; a line for each clip that cannot."""
        videos, held = {video.id: video for video in unit.videos}, held_latents(path, self.key)
        latents: dict[str, tuple[Tensor, Tensor]] = {}
        lines = []
        for row in rows:
            name = row["clip_id"]
            try:
                latents[name] = held.get(name) or clip_latents(
                    videos[row["video"]], row, encoders, self.batch_frames
                )
            except Unusable as error:
                lines.append(Line(row["video"], f"scored, but not encoded: {error}", skipped=False))
        had = [row for row in rows if row["clip_id"] in latents]
        if had:
            tensors = shard_tensors(had, latents, encoders, self.captions)
            write_json(path.with_suffix(".json"), had)
            write_shard(path, tensors, {"key": self.key, "clips": json.dumps(list(latents))})
        return lines


def held_clips(path: Path, key: str) -> list[str] | None:
    """The ids of a shard's clips in order; None where there is no shard of this key."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        said = file.metadata() or {}
    return json.loads(said["clips"]) if said.get("key") == key else None


def held_latents(path: Path, key: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and std of the clips that an older shard of this key holds: other thresholds cost only what is new."""
    ids = held_clips(path, key)
    if ids is None:
        return {}
    with safe_open(path, "pt") as file:
        mean, std = file.get_tensor("mean"), file.get_tensor("std")
    return {name: (mean[place], std[place]) for place, name in enumerate(ids)}


def shard_tensors(
    rows: Sequence[Row], latents: Mapping[str, tuple[Tensor, Tensor]], encoders: Encoders, captions: int
) -> dict[str, Tensor]:
    """The tensors of a shard, as `ShardDataset` reads them; every context is there once."""
    mean, std = (torch.stack([latents[row["clip_id"]][place] for row in rows]) for place in (0, 1))
    texts = [_chosen(row["captions"], captions) for row in rows]
    distinct = list(dict.fromkeys(text for row in texts for text in row))
    return {
        "mean": mean.contiguous(),
        "std": std.contiguous(),
        "text": encoders.contexts(distinct).half(),
        "caption": torch.tensor([[distinct.index(text) for text in row] for row in texts], dtype=torch.int32),
        "fps": torch.tensor([row["fps"] for row in rows], dtype=torch.float32),
        "group": torch.tensor([int(shard_of(row["group"]) * 2**32) for row in rows], dtype=torch.int64),
    }


def clip_latents(video: Video, row: Row, encoders: Encoders, batch: int) -> tuple[Tensor, Tensor]:
    """float16 mean and std (frames, c, h, w) of a clip.

    Raises:
        Unusable: the video has changed since it was scored.
    """
    [size] = parse_sizes(row["bucket"])
    frames = frames_at(video, row["pts"], size=size)
    moments = [encoders.latents(part) for part in frames.split(batch)]
    mean, std = (torch.cat([pair[place] for pair in moments]).half() for place in (0, 1))
    return mean, std


def _chosen(captions: Sequence[str], count: int) -> list[str]:
    """`count` captions, spread over those that there are; fewer are repeated, none is the empty prompt."""
    texts = list(captions) or [""]
    if len(texts) > count:
        return [texts[place * len(texts) // count] for place in range(count)]
    return [texts[place % len(texts)] for place in range(count)]
