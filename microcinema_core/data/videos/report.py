"""What was left out and why: one line of JSON a file, so that nothing disappears silently."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...files.atomic import atomic_write

REPORT = "report.jsonl"


@dataclass(frozen=True)
class Line:
    """`file` as the scan names it; `skipped` is False where some of the file was used all the same."""

    file: str
    reason: str
    skipped: bool = True


class Unusable(ValueError):
    """A file that gives no clip; the message is the report's reason."""


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """At once or not at all."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[Line]:
    """The lines of a report; none where there is no such file."""
    if not path.exists():
        return []
    return [Line(**json.loads(row)) for row in path.read_text(encoding="utf-8").splitlines()]
