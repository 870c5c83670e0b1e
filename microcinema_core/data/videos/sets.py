"""Sets of encoded clips: write each folder's index and empty prompt, and remove shards that are out of date."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ..shards import EMPTY_PROMPT, INDEX, shard_length, write_json, write_shard
from .encode import EncodeJob, stored_clip_ids
from .plan import WorkUnit, parse_sizes
from .score_table import ScoreRow

SET_NAME = re.compile(r"(base|tsr)(-test)?/\d+x\d+")
"""Names of the sets of this command; other folders with an index are not touched."""
SHARD_NAME = re.compile(r"[0-9a-f]{16}\.(safetensors|json)")
"""Names that encoding gives to shards; no other file of a folder is touched."""


def write_sets(job: EncodeJob, units: Sequence[WorkUnit], empty: Mapping[str, Tensor]) -> dict[str, int]:
    """Write the index of every set that these units have clips for, and remove shards that none lists.

    Args:
        job: the job that encoded the units.
        units: all units that are scored.
        empty: `text`, the empty prompt's context, `1 77 d`; with CLIP vision also `grey`, its features of mid grey.

    Returns:
        The number of clips by set.
    """
    shards: dict[str, list[Path]] = {}
    for unit in units:
        for name, rows in job.kept_rows(unit).items():
            path = job.path(unit, name)
            # A unit that failed may have the shard of an older run.
            stored = stored_clip_ids(path, job.key(name))
            if stored and set(stored) <= {row["clip_id"] for row in rows}:
                shards.setdefault(name, []).append(path)
    for name, paths in shards.items():
        folder = job.out / name
        write_shard(folder / EMPTY_PROMPT, {key: value.half() for key, value in empty.items()})
        write_json(folder / INDEX, _index(job, name, paths))
    before = set(list_sets(job.out))
    for stale in before - set(shards):
        (job.out / stale / INDEX).unlink()
    for name in before | set(shards):
        _remove_others(job.out / name, {path.stem for path in shards.get(name, [])})
    return {name: sum(shard_length(path) for path in paths) for name, paths in sorted(shards.items())}


def list_sets(out: Path) -> list[str]:
    """Return the names of the sets in `out` that have an index, as `ROLE[-test]/WIDTHxHEIGHT`."""
    names = (path.parent.relative_to(out).as_posix() for path in out.glob(f"*/*/{INDEX}"))
    return sorted(name for name in names if SET_NAME.fullmatch(name))


def _remove_others(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir():
        if SHARD_NAME.fullmatch(path.name) and path.stem not in kept:
            path.unlink()


def _index(job: EncodeJob, name: str, paths: Sequence[Path]) -> dict[str, Any]:
    role, _, split = name.partition("/")[0].partition("-")
    [size] = parse_sizes(name.partition("/")[2])
    with safe_open(paths[0], "pt") as file:
        _, frames, *latent = file.get_slice("mean").get_shape()
        width = file.get_slice("text").get_shape()[2]
    lengths = [shard_length(path) for path in paths]
    return {
        "role": role,
        "split": split or "train",
        "key": job.key(name),
        "checkpoint": job.checkpoint.name,
        "checkpoint_hash": job.digest,
        "size": list(size),
        "frames": frames,
        "fps": [rate.fps for rate in job.scores.geometry.rates if rate.role == role],
        "latent": latent,
        "text_width": width,
        "captions_per_clip": job.captions,
        "clip_vision": job.vision.name if job.vision is not None and role == "base" else None,
        "count": sum(lengths),
        "kept": [
            {"rate": rate, **{name: [_finite(edge) for edge in edges] for name, edges in limits.items()}}
            for (kind, rate), limits in job.limits.items()
            if kind == role
        ],
        "shards": lengths,
        "files": [path.name for path in paths],
    }


def _finite(edge: float) -> float | None:
    """Return None for an infinite edge, which JSON cannot hold."""
    return edge if math.isfinite(edge) else None


def read_set(folder: Path) -> list[ScoreRow]:
    """Read the score rows of a set's clips, in the order of its items."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    files = [(folder / name).with_suffix(".json") for name in index["files"]]
    return [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
