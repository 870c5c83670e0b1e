"""Scan a folder, a caption table or tar shards for videos and captions, without decoding.

The layout is recognised by what is there: tar shards; a table (`metadata.csv`, `.jsonl` or MSR-VTT's `.json`); else
every video below the folder, with a `.txt` of captions beside it, one a line. Videos named as in UCF-101 take their
class as caption.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...messages import is_text, one_line, reason
from .layouts import (
    MAX_CAPTION_BYTES,
    TABLE_NAMES,
    VIDEO_SUFFIXES,
    BadRow,
    CaptionRow,
    TarVideo,
    decode_captions,
    read_table,
    read_tar,
    split_captions,
)
from .report import ReportEntry, Unusable

UCF_NAME = re.compile(r"v_(?P<kind>[A-Za-z0-9]+)_g(?P<group>\d+)_c\d+$")


@dataclass(frozen=True)
class Video:
    """One video file, or one member of a tar.

    Attributes:
        id: the video's name in reports and scores.
        path: the file, or the tar that holds it.
        captions: the video's captions; empty only where missing captions are allowed.
        group: name shared by videos that must be on one side of the train/test split, such as all takes of one scene.
        stamp: value that changes when the file does.
        offset: where the member's bytes start in the tar; -1 means that the video is the whole file.
        size: the member's length in bytes.
    """

    id: str
    path: Path
    captions: tuple[str, ...]
    group: str
    stamp: str
    offset: int = -1
    size: int = 0

    @property
    def key(self) -> str:
        """A hash of all input that its clips and scores depend on."""
        text = "\0".join((self.id, self.stamp, self.group, *self.captions))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    def open(self) -> str | io.BytesIO:
        """Return what PyAV opens: the path, or the tar member's bytes."""
        if self.offset < 0:
            return str(self.path.absolute())  # a relative one could read as an address
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


ScanResult = tuple[list[Video], list[ReportEntry]]
"""The videos found, and why other files are none."""


def scan(root: Path, *, table: Path | None = None, missing_caption: str = "skip") -> ScanResult:
    """Find all videos, in a stable order, and report each file and each row that cannot be used.

    Args:
        root: folder, table or tar.
        table: a table that is stored elsewhere; its file names are relative to `root`.
        missing_caption: "skip" leaves out videos without a caption, "empty" gives them the empty prompt.

    Raises:
        ValueError: there is no such folder, a table has unknown columns, or nothing there could be a video.
    """
    for path, words in (
        (root, "give a folder of videos, a table of them, or tar shards"),
        (table, "give a .csv, .tsv, .jsonl or .json table"),
    ):
        if path is not None and not path.exists():
            raise ValueError(f"{one_line(path)} does not exist; {words}")
    videos, entries = _layout(root, table)()
    if not videos and not entries:
        raise ValueError(
            f"{one_line(root)} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))}), "
            "no metadata.csv or metadata.jsonl and no .tar"
        )
    videos = _merge_repeated(videos)
    if missing_caption == "skip":
        entries += [ReportEntry(video.id, _no_caption(video)) for video in videos if not video.captions]
        videos = [video for video in videos if video.captions]
    return videos, entries


def _layout(root: Path, table: Path | None) -> Callable[[], ScanResult]:
    if table is not None:
        return lambda: scan_table(root, table)
    if root.is_file():
        if root.suffix == ".tar":
            return lambda: scan_tars([root], root.parent, given=True)
        return lambda: scan_table(root.parent, root)
    if tars := sorted(root.glob("*.tar")):
        return lambda: scan_tars(tars, root)
    for name in TABLE_NAMES:
        if (found := root / name).exists():
            if _leads_out(found, root):
                raise ValueError(
                    f"{one_line(found)} is a link that leads out of the folder; name the table itself with --table"
                )
            return lambda: _scan_own_table(root, found)
    return lambda: scan_folder(root)


def _leads_out(path: Path, root: Path) -> bool:
    """Return whether a path, with all links followed, is outside of a folder; so is a link in a circle."""
    try:
        return not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return True


def _refuse_link_out(path: Path, root: Path) -> None:
    """Refuse a link to something outside of `root`.

    Raises:
        Unusable: the message says so.
    """
    if path.is_symlink() and _leads_out(path, root):
        raise Unusable(
            f"{one_line(path.name)} is a link that leads out of {one_line(root)}; copy what it points to"
        )


def _refuse_odd_name(name: str) -> None:
    """Refuse a name that neither tables of scores nor reports can hold.

    Raises:
        Unusable: the message says so.
    """
    if not is_text(name):
        raise Unusable("its name is no UTF-8 text; rename it")


def _no_caption(video: Video) -> str:
    if video.offset >= 0:
        return "no caption: expected a .txt or .json member of the same name in the tar"
    beside = one_line(video.path.with_suffix(".txt").name)
    return f"no caption: expected text in {beside} beside it, or a table's row"


def _merge_repeated(videos: list[Video]) -> list[Video]:
    """Return one entry a name; repeated rows (MSR-VTT's sentences) add their captions."""
    merged: dict[str, Video] = {}
    for video in videos:
        known = merged.setdefault(video.id, video)
        more = tuple(text for text in video.captions if text not in known.captions)
        merged[video.id] = replace(known, captions=known.captions + more)
    return sorted(merged.values(), key=lambda video: video.id)


def scan_folder(root: Path) -> ScanResult:
    """Find every video below `root`; captions come from the `.txt` beside it, else from UCF-101's naming.

    Links to folders are not followed, and links to files only if these are below `root` too.
    """
    videos: list[Video] = []
    entries: list[ReportEntry] = []
    for path in _walk(root, entries):
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        name = path.relative_to(root).as_posix()
        try:
            videos.append(_folder_video(root, path, name))
        except (OSError, Unusable) as error:
            entries.append(ReportEntry(name, reason(error)))
    return videos, entries


def _walk(root: Path, entries: list[ReportEntry]) -> Iterator[Path]:
    """Yield what is below `root` and no folder; report folders that cannot be read, and links to ones elsewhere."""

    def unreadable(error: OSError) -> None:
        name = Path(error.filename).relative_to(root).as_posix()
        entries.append(ReportEntry(name, f"this folder cannot be read: {reason(error)}"))

    for folder, inner, files in os.walk(root, onerror=unreadable):
        inner.sort()
        for name in inner:
            try:
                _refuse_link_out(Path(folder, name), root)
            except Unusable as error:
                entries.append(ReportEntry(Path(folder, name).relative_to(root).as_posix(), str(error)))
        yield from (Path(folder, name) for name in sorted(files))


def _folder_video(root: Path, path: Path, name: str) -> Video:
    """Return the video of a file.

    Raises:
        OSError: it cannot be read.
        Unusable: it or its text is no file, leads out of `root`, or has a name or content that is no text.
    """
    _refuse_odd_name(name)
    _refuse_link_out(path, root)
    if not path.is_file():
        raise Unusable("it is no file, or a link that leads nowhere")
    captions, group = _text_beside(path, root), name
    if not captions and (match := UCF_NAME.match(path.stem)):
        captions, group = (class_caption(match["kind"]),), f"{match['kind']}_g{match['group']}"
    return Video(name, path, captions, group, _stamp(path))


def class_caption(name: str) -> str:
    """Turn a class name into words: `ApplyEyeMakeup`, `YoYo`, `BMXRide` -> `apply eye makeup`, `yo yo`, `bmx ride`."""
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    return " ".join(words).lower()


def _text_beside(path: Path, root: Path) -> tuple[str, ...]:
    beside = path.with_suffix(".txt")
    _refuse_link_out(beside, root)
    if not beside.is_file():
        return ()
    with beside.open("rb") as file:
        return split_captions(decode_captions(file.read(MAX_CAPTION_BYTES + 1), beside.name))


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def scan_table(root: Path, table: Path) -> ScanResult:
    """Find the videos that a table names and that exist below `root`; a row that cannot be read is reported."""
    videos, entries = [], []
    for row in read_table(table):
        if isinstance(row, BadRow):
            entries.append(ReportEntry(f"{table.name}, {row.place}", row.reason))
            continue
        try:
            videos.append(_row_video(root, row))
        except (OSError, Unusable) as error:
            entries.append(ReportEntry(row.files[0], reason(error)))
    return videos, entries


def _scan_own_table(root: Path, table: Path) -> ScanResult:
    """Find the videos that a folder's own table names, and report those that it forgets."""
    videos, entries = scan_table(root, table)
    named = {os.path.normpath(video.path) for video in videos} | {
        os.path.normpath(root / entry.file) for entry in entries
    }
    for path in _walk(root, entries):
        if path.suffix.lower() in VIDEO_SUFFIXES and os.path.normpath(path) not in named:
            entries.append(
                ReportEntry(path.relative_to(root).as_posix(), f"{table.name} has no readable row for it")
            )
    return videos, entries


def _row_video(root: Path, row: CaptionRow) -> Video:
    """Return the video of a row.

    Raises:
        OSError: the file cannot be read.
        Unusable: there is no such file below `root`.
    """
    path = next((file for name in row.files if _is_file(file := root / name)), None)
    if path is None:
        raise Unusable(f"the table names it, but it is not below {one_line(root)}")
    if _leads_out(path, root):
        raise Unusable(f"the table names it, but it is outside {one_line(root)}")
    name = path.relative_to(root).as_posix()
    texts = tuple(dict.fromkeys(text for caption in row.captions for text in split_captions(caption)))
    return Video(name, path, texts, name, _stamp(path))


def _is_file(path: Path) -> bool:
    """Return whether there is such a file; false for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def scan_tars(tars: list[Path], root: Path, *, given: bool = False) -> ScanResult:
    """Find the videos inside tar shards; their names start with the tar's path below `root`.

    A shard that is a link to a file outside of `root` is refused, unless it was `given` by name.
    """
    videos: list[Video] = []
    entries: list[ReportEntry] = []
    for tar in tars:
        name, before = tar.relative_to(root).as_posix(), len(videos)
        try:
            _refuse_odd_name(name)
            if not given:
                _refuse_link_out(tar, root)
            _scan_tar(tar, name, videos, entries)
        except (OSError, Unusable) as error:
            entries.append(ReportEntry(name, reason(error), skipped=len(videos) == before))
    return videos, entries


def _scan_tar(tar: Path, name: str, videos: list[Video], entries: list[ReportEntry]) -> None:
    """Add the videos of a tar, and an entry for each that cannot be used or whose captions cannot.

    Raises:
        OSError: the tar cannot be read.
        Unusable: it is no tar or damaged; videos before the damage were added.
    """
    stamp, seen = _stamp(tar), set[str]()
    for member in read_tar(tar):
        key = f"{name}/{member.name}"
        try:
            if member.name in seen:
                raise Unusable("the tar holds several members of this name; the first is used")
            seen.add(member.name)
            videos.append(_tar_video(tar, key, stamp, member))
            if member.problem:
                entries.append(ReportEntry(key, f"some of its captions: {member.problem}", skipped=False))
        except Unusable as error:
            entries.append(ReportEntry(key, str(error)))


def _tar_video(tar: Path, key: str, stamp: str, member: TarVideo) -> Video:
    """Return the video of a member.

    Raises:
        Unusable: its name is no text, it has no bytes of its own, or all of its captions are unreadable.
    """
    _refuse_odd_name(key)
    if member.problem and (member.offset < 0 or not member.captions):
        raise Unusable(member.problem)
    place = (member.offset, member.size)
    return Video(key, tar, member.captions, key, f"{stamp}-{member.offset}", *place)
