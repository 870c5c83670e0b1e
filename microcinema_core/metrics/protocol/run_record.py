"""A record beside what was made: how it was made, so that no file of another run is taken for one of this run."""

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
"""Name of the record of the videos in the folder of the samples, and of the centre frames in theirs."""
HASH_LENGTH = 16
TEXT_FILES = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""Files of a tokenizer or a processor."""
WEIGHT_FILES = ("*.safetensors", "*.bin")


def digest(value: Any) -> str:
    """Return a short hash of a JSON value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LENGTH]


def digest_of_files(path: Path | None, kinds: Sequence[str] = (*TEXT_FILES, *WEIGHT_FILES)) -> str | None:
    """Return a short hash of a file, or of a model's files of these kinds in a folder; None without a path."""
    if path is None or not path.is_dir():
        return hash_of(path)[:HASH_LENGTH] if path is not None else None
    files = sorted(file for kind in kinds for file in path.rglob(kind))
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


def check_record(path: Path, facts: Mapping[str, Any], made: Iterable[Path], what: str) -> None:
    """Write how files are made, after refusing those that were made in another way.

    Args:
        path: the record.
        facts: all that the files depend on, as JSON values by what a message calls them.
        made: the files of this run, of which some may exist.
        what: what they are and where, such as "videos in OUT".

    Raises:
        ValueError: some exist, and were made in another way, or it is not known how.
        OSError: the record cannot be written.
    """
    refuse_mixture(path, facts, made, what)
    write_record(path, facts)


def refuse_mixture(path: Path, facts: Mapping[str, Any], made: Iterable[Path], what: str) -> None:
    """Refuse files that were made in another way; arguments and ValueError as for `check_record`."""
    before, now = _read(path), _as_json(facts)
    if before == now or not any(file.exists() for file in made):
        return
    advice = "give another OUT, or move them away"
    if before is None:
        raise ValueError(
            f"there are {what}, but no {one_line(path.name)} that says how they were made; {advice}"
        )
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = ", ".join(f"{name} was {before.get(name)} and is {now.get(name)}" for name in names)
    raise ValueError(f"the {what} were made otherwise ({one_line(told)}); {advice}")


def write_record(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a record, unless it is there already."""
    if _read(path) != _as_json(facts):
        write_json(path, facts)


def _as_json(facts: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(facts))


def _read(path: Path) -> dict[str, Any] | None:
    """Return a record; None where there is none to be read."""
    try:
        content = json_text.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None
