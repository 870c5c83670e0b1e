"""`run.json` beside the samples: how they were made, so that no file of another run is taken for one of this run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ... import json_text
from ...data.shards import write_json
from ...files.downloads import hash_of
from ...messages import one_line
from .prompts import Prompt

RECORD = "run.json"
"""Of the videos in the folder of the samples; of the centre frames in theirs."""
HASH_LENGTH = 16


def digest(value: Any) -> str:
    """Return a short hash of a JSON value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LENGTH]


def digest_of_files(path: Path | None) -> str | None:
    """Return a short hash of a file, or of a model's files in a folder; None without a path."""
    if path is None or not path.is_dir():
        return hash_of(path)[:HASH_LENGTH] if path is not None else None
    files = sorted(file for kind in ("*.json", "*.safetensors", "*.bin") for file in path.rglob(kind))
    return digest([[file.relative_to(path).as_posix(), hash_of(file)] for file in files])


def digest_of_prompts(prompts: Sequence[Prompt]) -> str:
    """Return a short hash of a whole list."""
    return digest([asdict(prompt) for prompt in prompts])


def describe_centres(centres: Path | None, out: Path) -> str | None:
    """Return which centre frames are used: their folder, relative to `out` where it lies inside, and its record."""
    if centres is None:
        return None
    inside = centres.absolute().is_relative_to(out.absolute())
    name = centres.absolute().relative_to(out.absolute()) if inside else centres.absolute()
    record = centres / RECORD
    return f"{name.as_posix()} {digest_of_files(record)}" if record.is_file() else name.as_posix()


def check_record(folder: Path, record: Mapping[str, Any], made: Iterable[Path], what: str) -> None:
    """Write how the files of a folder are made; what was made in another way is refused.

    Args:
        folder: where the files are.
        record: all that they depend on, as JSON values by what a message calls them.
        made: the files of this run, of which some may exist.
        what: what they are: "videos" or "centre frames".

    Raises:
        ValueError: some exist, and were made in another way, or it is not known how.
        OSError: the record cannot be written.
    """
    path, now = folder / RECORD, json.loads(json.dumps(record))
    before = _read(path)
    if before == now:
        return
    if any(file.exists() for file in made):
        advice = f"give another folder, or move these {what} and their {RECORD} away"
        if before is None:
            raise ValueError(
                f"{one_line(folder)} has {what}, but no {RECORD} that says how they were made; {advice}"
            )
        differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        told = ", ".join(f"{name} was {before.get(name)} and is {now.get(name)}" for name in differing)
        raise ValueError(f"the {what} in {one_line(folder)} were made otherwise ({one_line(told)}); {advice}")
    write_json(path, now)


def _read(path: Path) -> dict[str, Any] | None:
    """Return a record; None where there is none to be read."""
    try:
        content = json_text.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None
