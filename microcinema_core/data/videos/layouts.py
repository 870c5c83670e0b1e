"""Readers of the layouts that list videos with captions: caption tables and tar shards.

Tables have the columns of WebVid, of MSR-VTT, or plain `file_name` and `text`. Tar shards are WebDataset's: members of
one name belong together, and a `.txt` or `.json` member holds the video's captions.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .report import Unusable

VIDEO_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("3gp", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg"),
        *("mpg", "mts", "ogv", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
TABLE_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.json")
FILE_COLUMNS = ("file_name", "file", "path", "video")
TEXT_COLUMNS = ("text", "caption", "captions", "sentence", "name", "description")
ID_COLUMNS = ("videoid", "video_id")
ID_EXTENSIONS = ("mp4", "webm", "mkv", "avi")
EXPECTED_COLUMNS = (
    "expected file_name and text; or WebVid's videoid, page_dir and name; "
    "or MSR-VTT's video_id and caption or sentence"
)
MAX_CAPTION_BYTES = 1 << 20


@dataclass(frozen=True)
class CaptionRow:
    """One row of a caption table: paths where the video may be, likeliest first, and its captions."""

    files: tuple[str, ...]
    captions: tuple[str, ...]


def split_captions(text: str) -> tuple[str, ...]:
    """Return the distinct non-empty lines of a text, with runs of white space as single spaces."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line))


def read_table(path: Path) -> Iterator[CaptionRow]:
    """Read the rows of a .csv, .tsv, .jsonl or .json table.

    Raises:
        ValueError: the file is no such table, or lacks the columns; the message names both.
    """
    for number, record in enumerate(_records(path), 1):
        fields = {str(key).strip().lower(): value for key, value in record.items() if key is not None}
        files, texts = _files(fields), _texts(fields)
        if not files or texts is None:
            have = ", ".join(sorted(fields)) or "none"
            raise ValueError(f"{path.name}, row {number}: the columns are {have}; {EXPECTED_COLUMNS}")
        yield CaptionRow(files, texts)


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
            raise ValueError(f"{path.name} is not a readable table ({error})") from error


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _json_object(line, f"{path.name}, line {number}")


def _json_object(text: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} is a {type(value).__name__}; expected an object keyed by column names")
    return value


def _msrvtt(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read MSR-VTT's own file: a list `sentences` of objects with `video_id` and `caption`."""
    value = _json_object(path.read_text(encoding="utf-8-sig"), path.name)
    sentences = value.get("sentences")
    if not isinstance(sentences, list):
        raise ValueError(f"{path.name} holds {', '.join(sorted(value))}; expected MSR-VTT's list `sentences`")
    yield from (row if isinstance(row, dict) else {} for row in sentences)


def _files(fields: Mapping[str, Any]) -> tuple[str, ...]:
    for column in FILE_COLUMNS:
        if name := str(fields.get(column) or "").strip():
            return name, f"videos/{name}"
    identity = next((str(fields[key]).strip() for key in ID_COLUMNS if fields.get(key)), "")
    if not identity:
        return ()
    page = str(fields.get("page_dir") or "").strip()
    folders = [f"{page}/", f"videos/{page}/"] if page else []
    places = [f"{folder}{identity}" for folder in (*folders, "", "videos/", "video/")]
    return tuple(f"{place}.{extension}" for extension in ID_EXTENSIONS for place in places)


def _texts(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the captions, or None where there is no such column; an empty cell is a missing caption."""
    column = next((name for name in TEXT_COLUMNS if name in fields), None)
    return None if column is None else tuple(str(text) for text in _as_list(fields[column]) if text)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class TarVideo:
    """A video inside a tar: the member's name, the position of its bytes, and its captions."""

    name: str
    offset: int
    size: int
    captions: tuple[str, ...]


def read_tar(tar: Path) -> Iterator[TarVideo]:
    """List the videos of an uncompressed tar, in its order. Only names and captions are read.

    Raises:
        Unusable: the file is no tar, or is cut short. Videos before the damage were yielded.
    """
    try:
        with tarfile.open(tar, "r:") as file:
            name, video = "", None
            texts: list[str] = []
            for member in file:
                if not member.isfile():
                    continue
                stem, kind = _split_name(member.name)
                if stem != name:
                    yield from _tar_video(video, texts)
                    name, video, texts = stem, None, []
                if f".{kind.rpartition('.')[2]}" in VIDEO_SUFFIXES:
                    video = member
                else:
                    texts += _member_captions(file, member, kind)
            yield from _tar_video(video, texts)
    except tarfile.TarError as error:
        raise Unusable(f"{tar.name} is not a complete tar ({error}); download it again") from error


def _split_name(name: str) -> tuple[str, str]:
    """`sub/2.cam.mp4` -> `sub/2` and `cam.mp4`: WebDataset's key ends at the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _member_captions(file: tarfile.TarFile, member: tarfile.TarInfo, kind: str) -> list[str]:
    if kind not in ("txt", "json", "caption") or member.size > MAX_CAPTION_BYTES:
        return []
    stream = file.extractfile(member)
    text = stream.read().decode("utf-8", errors="replace") if stream else ""
    texts = _json_captions(text) if kind == "json" else [text]
    return [line for one in texts for line in split_captions(one)]


def _json_captions(text: str) -> list[str]:
    try:
        fields = json.loads(text)
    except ValueError:
        return []
    fields = fields if isinstance(fields, dict) else {}
    return [
        str(one) for one in _as_list(next((fields[name] for name in TEXT_COLUMNS if fields.get(name)), []))
    ]


def _tar_video(member: tarfile.TarInfo | None, texts: list[str]) -> Iterator[TarVideo]:
    if member is not None:
        yield TarVideo(member.name, member.offset_data, member.size, tuple(dict.fromkeys(texts)))
