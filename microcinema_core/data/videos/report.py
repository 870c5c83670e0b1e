"""The report of files that gave no clip, one JSON object a line, so that nothing is left out silently."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ... import json_text
from ...files.atomic import atomic_write
from ...messages import is_text

REPORT = "report.jsonl"


@dataclass(frozen=True)
class ReportEntry:
    """Why a file, or a unit of files, gave no clip or fewer clips.

    Attributes:
        file: the file's name, as in `sources.Video.id`.
        reason: why the file gave no clip, or fewer clips.
        skipped: whether nothing of the file was used; False if part of it was.
    """

    file: str
    reason: str
    skipped: bool = True


class Unusable(ValueError):
    """A file that gives no clip; the message is the reason for the report."""


def write_report(path: Path, entries: Iterable[ReportEntry]) -> None:
    """Write a report atomically."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for entry in entries:
            file.write(_to_line(entry))


def _to_line(entry: ReportEntry) -> str:
    """Return an entry as a line of JSON, with escapes where a name could not be written otherwise."""
    line = json.dumps(asdict(entry), ensure_ascii=False)
    return (line if is_text(line) else json.dumps(asdict(entry))) + "\n"


def read_report(path: Path) -> list[ReportEntry]:
    """Read a report; a missing file has no entries, and an unreadable one has one that says so."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # names may hold what str.splitlines splits at
        return [ReportEntry(**json_text.loads(line)) for line in lines if line]
    except (ValueError, TypeError):
        return [
            ReportEntry(path.name, "this unit's own report is damaged; what it said is lost", skipped=False)
        ]
