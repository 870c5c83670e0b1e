"""The report of files that gave no clip, one JSON object a line, so that nothing is left out silently."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...files.atomic import atomic_write

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
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        for entry in entries:
            file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")


def read_report(path: Path) -> list[ReportEntry]:
    """Read a report; a missing file has no entries."""
    if not path.exists():
        return []
    return [ReportEntry(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
