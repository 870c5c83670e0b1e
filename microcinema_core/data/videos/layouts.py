"""Readers of the layouts that list videos with captions: caption tables and tar shards.

Tables have the columns of WebVid, of MSR-VTT, or plain `file_name` and `text`. Tar shards are WebDataset's: members of
one name belong together, and a `.txt` or `.json` member holds the video's captions. An odd row or member is told, and
the others are read.
"""

from __future__ import annotations

import csv
import math
import struct
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ... import json_text
from ...messages import is_text, one_line, reason
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
NO_UTF8 = "is no UTF-8 text; save it as UTF-8"
TAR_ERRORS = (
    *(tarfile.TarError, struct.error, OSError, EOFError, ValueError, ArithmeticError, LookupError, TypeError),
    *(RecursionError, MemoryError, NotImplementedError),
)
"""What `tarfile` raises on damaged headers."""
BLOCK = 512
"""Bytes of a tar's blocks; a block of zeros ends it."""


@dataclass(frozen=True)
class CaptionRow:
    """One row of a caption table: paths where the video may be, likeliest first, and its captions."""

    files: tuple[str, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class BadRow:
    """A row that is left out: its place in the table, such as `line 7`, and a sentence on why, which names it."""

    place: str
    reason: str


class _Odd(ValueError):
    """What is wrong with a row; the message continues a sentence that starts with the row's place."""


def split_captions(text: str) -> tuple[str, ...]:
    """Return the distinct non-empty lines of a text, with runs of white space as single spaces."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line))


def decode_captions(data: bytes, name: str) -> str:
    """Return the text of a file of captions.

    Raises:
        Unusable: it is too long, or no UTF-8 text; the message names the file.
    """
    if len(data) > MAX_CAPTION_BYTES:
        raise Unusable(f"{one_line(name)} is longer than {MAX_CAPTION_BYTES} bytes; that is no caption")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(f"{one_line(name)} is no UTF-8 text ({error.reason}); save it as UTF-8") from error


def read_table(path: Path) -> Iterator[CaptionRow | BadRow]:
    """Read the rows of a .csv, .tsv, .jsonl or .json table.

    Raises:
        ValueError: the file is no such table, lacks the columns, or has no good row; the message names it.
        OSError: it cannot be read.
    """
    if path.is_dir():
        raise ValueError(f"{one_line(path)} is a folder; expected a .csv, .tsv, .jsonl or .json table")
    first, good = None, False
    for number, (place, record) in enumerate(_records(path), 1):
        row = _row(record, place or f"row {number}")
        good = good or isinstance(row, CaptionRow)
        first = first or (row if isinstance(row, BadRow) else None)
        yield row
    if not good:
        why = first.reason if first else f"no row; {EXPECTED_COLUMNS}"
        raise ValueError(f"{one_line(path.name)}{', ' if first else ' holds '}{why}")


_Record = tuple[str, "Mapping[str, Any] | _Odd"]
"""A row's place, "" for its number, and its fields or what is wrong with it."""


def _row(record: Mapping[str, Any] | _Odd, place: str) -> CaptionRow | BadRow:
    try:
        if isinstance(record, _Odd):
            raise record
        fields = {str(key).strip().lower(): value for key, value in record.items() if key is not None}
        files, texts = _files(fields), _texts(fields)
        if not files or texts is None:
            have = one_line(", ".join(sorted(fields))) or "none"
            raise _Odd(f": the columns are {have}; {EXPECTED_COLUMNS}")
        return CaptionRow(files, texts)
    except _Odd as odd:
        return BadRow(place, f"{place}{odd}")


def _records(path: Path) -> Iterator[_Record]:
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        yield from _csv(path, "\t" if kind == ".tsv" else ",")
    elif kind in (".jsonl", ".ndjson"):
        yield from _json_lines(path)
    elif kind == ".json":
        yield from _msrvtt(path)
    else:
        raise ValueError(f"{one_line(path.name)} is no table; expected .csv, .tsv, .jsonl or .json")


class _Lines:
    """The lines of a file; `kept` has those that were read since it was last emptied."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.kept = iter(lines), list[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.kept.append(line := next(self._lines))
        return line


def _csv(path: Path, delimiter: str) -> Iterator[_Record]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter=delimiter)
        header: Sequence[str] | None = None
        while True:
            lines.kept.clear()
            try:
                cells = next(reader)
                if cells and header is not None:
                    yield "", _fields(header, cells, lines.kept, delimiter)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None:  # Python 3.10 reads no null bytes, of which UTF-16 is full
                    why = (
                        f"is not a readable table ({reason(error)})"
                        if is_text("".join(lines.kept))
                        else NO_UTF8
                    )
                    raise ValueError(f"{one_line(path.name)} {why}") from error
                yield "", _Odd(f" cannot be read ({one_line(error)})")
            else:
                header = header or _header(path, cells)


def _header(path: Path, cells: Sequence[str]) -> Sequence[str] | None:
    """Return the names of the columns; None for an empty line.

    Raises:
        ValueError: they are no text, or not those of a caption table.
    """
    if not is_text("".join(cells)):
        raise ValueError(f"{one_line(path.name)} {NO_UTF8}")
    names = {cell.strip().lower() for cell in cells}
    if cells and not (names & {*FILE_COLUMNS, *ID_COLUMNS} and names & {*TEXT_COLUMNS}):
        have = one_line(", ".join(sorted(names)))
        raise ValueError(f"{one_line(path.name)}, row 1: the columns are {have}; {EXPECTED_COLUMNS}")
    return cells or None


def _fields(
    header: Sequence[str], cells: Sequence[str], lines: Sequence[str], delimiter: str
) -> Mapping[str, Any] | _Odd:
    """Return the cells of a row by column, or what is wrong with it: text that a table's writer did not quote."""
    if sum(line.count('"') for line in lines) % 2 and _is_open(lines, delimiter):
        return _Odd(
            f" opens a quote that is never closed, so it takes up the last {len(lines)} lines of the table"
        )
    if any(cells[len(header) :]):
        return _Odd(
            f" has {len(cells)} cells and the table {len(header)} columns; put text with {delimiter!r} in quotes"
        )
    return dict(zip_longest(header, cells[: len(header)], fillvalue=""))


def _is_open(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether the last cell of these lines starts with a quote and has no end."""
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _json_lines(path: Path) -> Iterator[_Record]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _json_object(line)


def _json_object(text: str) -> Mapping[str, Any] | _Odd:
    try:
        value = json_text.loads(text)
    except (ValueError, MemoryError) as error:
        return _Odd(f" is no JSON ({reason(error)})")
    if not isinstance(value, dict):
        return _Odd(f" is a {type(value).__name__}; expected an object keyed by column names")
    return value


def _msrvtt(path: Path) -> Iterator[_Record]:
    """Read MSR-VTT's own file: a list `sentences` of objects with `video_id` and `caption`."""
    value = _json_object(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
    if isinstance(value, _Odd):
        raise ValueError(f"{one_line(path.name)}{value}")
    sentences = value.get("sentences")
    if not isinstance(sentences, list):
        have = one_line(", ".join(sorted(value))) or "nothing"
        raise ValueError(f"{one_line(path.name)} holds {have}; expected MSR-VTT's list `sentences`")
    for row in sentences:
        kind = type(row).__name__
        yield "", row if isinstance(row, dict) else _Odd(f" is a {kind}; expected an object with `video_id`")


def _word(value: Any, column: str) -> str:
    """Return a cell as text, "" for an empty one.

    Raises:
        _Odd: it is neither a text nor a number, or cannot be written as UTF-8.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if (
        isinstance(value, float) and value.is_integer()
    ):  # ids of a column that has gaps, as some tools write it
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Odd(f": {column} is a {type(value).__name__}; expected a text")
    text = str(value).strip()
    if not is_text(text):
        raise _Odd(f": {column} {NO_UTF8}")
    return text


def _files(fields: Mapping[str, Any]) -> tuple[str, ...]:
    for column in FILE_COLUMNS:
        if name := _word(fields.get(column), column):
            return name, f"videos/{name}"
    identity = next((word for key in ID_COLUMNS if (word := _word(fields.get(key), key))), "")
    if not identity:
        return ()
    page = _word(fields.get("page_dir"), "page_dir")
    folders = [f"{page}/", f"videos/{page}/"] if page else []
    places = [f"{folder}{identity}" for folder in (*folders, "", "videos/", "video/")]
    return tuple(f"{place}.{extension}" for extension in ID_EXTENSIONS for place in places)


def _texts(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the captions, or None where there is no such column; an empty cell is a missing caption."""
    column = next((name for name in TEXT_COLUMNS if name in fields), None)
    if column is None:
        return None
    return tuple(word for text in _as_list(fields[column]) if (word := _word(text, column)))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class TarVideo:
    """A video inside a tar.

    Attributes:
        name: the member's name.
        offset, size: the place of its bytes in the tar.
        captions: its captions.
        problem: why its captions, or the video itself if it has no bytes of its own, cannot be used; or "".
    """

    name: str
    offset: int
    size: int
    captions: tuple[str, ...]
    problem: str = ""


def read_tar(tar: Path) -> Iterator[TarVideo]:
    """List the videos of an uncompressed tar, in its order. Only names and captions are read.

    Raises:
        Unusable: the file is no tar, or is damaged or cut short. Videos before the damage were yielded.
    """
    try:
        with tarfile.open(tar, "r:") as file:
            yield from _tar_videos(file)
            _refuse_damage(file)
    except Unusable as error:
        raise Unusable(f"{one_line(tar.name)} {error}; download it again") from error
    except TAR_ERRORS as error:
        raise Unusable(
            f"{one_line(tar.name)} is not a complete tar ({reason(error)}); download it again"
        ) from error


def _tar_videos(file: tarfile.TarFile) -> Iterator[TarVideo]:
    """Yield the videos of one name after another, each with the captions of its name; errors as for `read_tar`."""
    name, damage = "", None
    videos: list[tarfile.TarInfo] = []
    texts: list[str] = []
    problems: list[str] = []
    for member in _members(file):
        if isinstance(member, Exception):
            damage = member
            break
        stem, kind = _split_name(member.name)
        if stem != name:
            yield from _with_captions(videos, texts, problems)
            name, videos, texts, problems = stem, [], [], []
        if f".{kind.rpartition('.')[2]}" in VIDEO_SUFFIXES:
            videos += [] if member.isdir() else [member]
            continue
        try:
            texts += _member_captions(file, member, kind)
        except Unusable as error:
            problems.append(str(error))
    if damage is not None:
        videos = [video for video in videos if video.offset_data + video.size <= _length(file)]
    yield from _with_captions(videos, texts, problems)
    if damage is not None:
        raise damage


def _members(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo | Exception]:
    """Yield the members, and at damage an error as the last one, so that what comes before can be used."""
    end = 0
    try:
        for member in file:
            if member.offset < end or member.size < 0:  # it would go round in circles
                yield Unusable(f"is damaged at byte {max(member.offset, end)}")
                return
            end = member.offset + BLOCK
            yield member
    except TAR_ERRORS as error:
        yield error


def _length(file: tarfile.TarFile) -> int:
    stream: Any = file.fileobj
    return stream.seek(0, 2)


def _refuse_damage(file: tarfile.TarFile) -> None:
    """Refuse a tar that does not end with a block of zeros: `tarfile` itself stops silently at a damaged header.

    Raises:
        Unusable: something else follows the last member, or nothing.
    """
    stream: Any = file.fileobj
    stream.seek(file.offset)
    block = stream.read(BLOCK)
    if not block:
        raise Unusable("ends without a tar's end mark, so it may be cut short; what it holds is used")
    if block.strip(b"\0"):
        raise Unusable(f"is damaged at byte {file.offset}; what comes before is used")


def _split_name(name: str) -> tuple[str, str]:
    """`sub/2.cam.mp4` -> `sub/2` and `cam.mp4`: WebDataset's key ends at the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _member_captions(file: tarfile.TarFile, member: tarfile.TarInfo, kind: str) -> list[str]:
    if kind not in ("txt", "json", "caption") or not member.isfile():
        return []
    stream = file.extractfile(member)
    text = decode_captions(stream.read(MAX_CAPTION_BYTES + 1) if stream else b"", member.name)
    texts = _json_captions(text, member.name) if kind == "json" else [text]
    return [line for one in texts for line in split_captions(one)]


def _json_captions(text: str, name: str) -> list[str]:
    """Return the captions of a JSON object; one without captions has none.

    Raises:
        Unusable: it is no JSON, or a caption is no text.
    """
    fields = _json_object(text)
    try:
        if isinstance(fields, _Odd):
            raise fields
        column = next((key for key in TEXT_COLUMNS if fields.get(key)), None)
        return [_word(one, column) for one in _as_list(fields[column])] if column else []
    except _Odd as odd:
        raise Unusable(f"{one_line(name)}{odd}") from odd


def _with_captions(
    members: Sequence[tarfile.TarInfo], texts: Sequence[str], problems: Sequence[str]
) -> Iterator[TarVideo]:
    captions = tuple(dict.fromkeys(texts))
    for member in members:
        own = "" if member.isfile() else "it is a link or a device in the tar, not a file of its own"
        if member.isfile() and member.issparse():
            own = "it is stored as a sparse file; pack it again without --sparse"
        place = (-1, 0) if own else (member.offset_data, member.size)
        yield TarVideo(member.name, *place, captions, own or "; ".join(problems))
