"""Tables of videos and captions: the columns of WebVid, of MSR-VTT, and of plain `file_name`, `text`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.json")
FILE_COLUMNS = ("file_name", "file", "path", "video")
TEXT_COLUMNS = ("text", "caption", "captions", "sentence", "name", "description")
VIDEO_ID = ("videoid", "video_id")
EXTENSIONS = ("mp4", "webm", "mkv", "avi")
EXPECTED = (
    "expected file_name and text; or WebVid's videoid, page_dir and name; "
    "or MSR-VTT's video_id and caption or sentence"
)


@dataclass(frozen=True)
class TableRow:
    """files: where the video may lie, the likeliest first. group: "" or what belongs together."""

    files: tuple[str, ...]
    captions: tuple[str, ...]
    group: str = ""


def read_table(path: Path) -> Iterator[TableRow]:
    """The rows of a .csv, .tsv, .jsonl or .json table.

    Raises:
        ValueError: the file is no such table, or lacks the columns; both are named.
    """
    rows = _records(path)
    for number, record in enumerate(rows, 1):
        fields = {str(key).strip().lower(): value for key, value in record.items() if key is not None}
        files, texts = _files(fields), _texts(fields)
        if not files or texts is None:
            have = ", ".join(sorted(fields)) or "none"
            raise ValueError(f"{path.name}, row {number}: the columns are {have}; {EXPECTED}")
        yield TableRow(files, texts)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if path.suffix in (".csv", ".tsv"):
            yield from _csv(path)
        elif path.suffix in (".jsonl", ".ndjson"):
            yield from _json_lines(path)
        elif path.suffix == ".json":
            yield from _msrvtt(path)
        else:
            raise ValueError(f"{path.name} is no table; expected .csv, .tsv, .jsonl or .json")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no UTF-8 text ({error.reason}); save it as UTF-8") from error


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        except csv.Error as error:
            raise ValueError(f"{path.name} is no readable table ({error})") from error


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, row in enumerate(file, 1):
            if row.strip():
                yield _object(row, f"{path.name}, line {number}")


def _object(text: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} is a {type(value).__name__}; expected an object with the columns' names")
    return value


def _msrvtt(path: Path) -> Iterator[Mapping[str, Any]]:
    """MSR-VTT's own file: `sentences`, each with `video_id` and `caption`."""
    value = _object(path.read_text(encoding="utf-8-sig"), path.name)
    sentences = value.get("sentences")
    if not isinstance(sentences, list):
        raise ValueError(f"{path.name} holds {', '.join(sorted(value))}; expected MSR-VTT's list `sentences`")
    yield from (row if isinstance(row, dict) else {} for row in sentences)


def _files(fields: Mapping[str, Any]) -> tuple[str, ...]:
    for column in FILE_COLUMNS:
        if name := str(fields.get(column) or "").strip():
            return name, f"videos/{name}"
    identity = next((str(fields[key]).strip() for key in VIDEO_ID if fields.get(key)), "")
    if not identity:
        return ()
    page = str(fields.get("page_dir") or "").strip()
    folders = [page, f"videos/{page}"] if page else []
    places = [f"{folder}/{identity}" for folder in folders] + [
        identity,
        f"videos/{identity}",
        f"video/{identity}",
    ]
    return tuple(f"{place}.{extension}" for extension in EXTENSIONS for place in places)


def _texts(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """None where there is no such column; an empty cell is a missing caption."""
    column = next((name for name in TEXT_COLUMNS if name in fields), None)
    if column is None:
        return None
    value = fields[column]
    values = value if isinstance(value, list) else [value]
    return tuple(str(text) for text in values if text)
