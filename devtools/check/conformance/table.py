"""The rows as tables in RESULTS.md of this folder, one section per version of the host."""

from __future__ import annotations

import datetime
import platform
import re
from collections.abc import Iterable

import torch

from .compare import BUG, EQUAL, NOT_APPLICABLE, Row

COLUMNS = ("node or combination", "family", "outcome", "first step", "end", "effect", "random weights", "why")
_FAMILY = re.compile(r"SD \d\.x(?:, all blocks)?|AnimateDiff v\d|PIA(?: alone)?|DynamiCrafter")
"""One family in a cell that holds several, separated by commas."""
HEADER = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"


def unexplained(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that must be fixed: other numbers, only ours failing, or no reason given."""
    return [
        row
        for row in rows
        if row.outcome == BUG
        or (row.outcome == NOT_APPLICABLE and not row.why)
        or row.random.startswith("fails")
    ]


def summary(rows: list[Row]) -> str:
    """Count the rows by outcome, in one line."""
    counts = {
        outcome: sum(row.outcome == outcome for row in rows) for outcome in (EQUAL, NOT_APPLICABLE, BUG)
    }
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def worst(rows: list[Row]) -> str:
    """Return the largest differences of all rows, as half a sentence."""
    first, last = (max((getattr(row, key) or 0.0 for row in rows), default=0.0) for key in ("first", "last"))
    return f"Largest difference {first:.1e} at the first step, {last:.1e} at the end"


def section(rows: list[Row], *, version: str, arguments: list[str], command: str) -> str:
    """Format the section of one host, as Markdown."""
    where = f"Python {platform.python_version()}, torch {torch.__version__}, CPU, float32"
    flags = f" with `{' '.join(arguments)}`" if arguments else ""
    lines = [
        f"## ComfyUI {version}{flags}",
        "",
        f"{datetime.date.today().isoformat()}, {where}, by `{command}`: {summary(rows)}. {worst(rows)}.",
        "",
        HEADER + "".join(_lines(rows)),
    ]
    return "\n".join(lines)


def outcomes(page: str, name: str) -> dict[tuple[str, str], str]:
    """Read the outcomes of a section of the page by (name, family); empty where there is no such section."""
    found = re.search(rf"<!-- {re.escape(name)} -->(.*?)<!-- end of ", page, re.DOTALL)
    said: dict[tuple[str, str], str] = {}
    for line in found.group(1).splitlines() if found else ():
        cells = line.strip("| ").split(" | ")
        if len(cells) > 2 and cells[2] in (EQUAL, NOT_APPLICABLE, BUG):
            said |= {(cells[0], family): cells[2] for family in _FAMILY.findall(cells[1])}
    return said


def mark(version: str, arguments: list[str]) -> str:
    """Return the name of a host's section on the page."""
    return " ".join(["conformance", version, *arguments]).replace("--", "")


def _lines(rows: list[Row]) -> Iterable[str]:
    for name, alike in _merged(rows):
        row = alike[0]
        families = ", ".join(one.family for one in alike)
        numbers = (_worst(alike, key) for key in ("first", "last", "effect"))
        yield f"| {name} | {families} | {row.outcome} | {' | '.join(numbers)} | {row.random} | {row.why} |\n"


def _merged(rows: list[Row]) -> Iterable[tuple[str, list[Row]]]:
    """Group rows of one name that have the same outcome for several families, in order."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        why = row.random if row.outcome == EQUAL else re.sub(r"\d+", "n", row.why)
        groups.setdefault((row.name, row.outcome, why), []).append(row)
    return ((name, alike) for (name, _, _), alike in groups.items())


def _worst(rows: list[Row], key: str) -> str:
    values = [value for row in rows if (value := getattr(row, key)) is not None]
    return f"{max(values):.1e}" if values and max(values) else ("0" if values else "")
