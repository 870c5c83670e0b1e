"""Scan a folder, a caption table or tar shards for videos and captions, without decoding.

The layout is recognised by what is there: tar shards; a table (`metadata.csv`, `.jsonl` or MSR-VTT's `.json`); else
every video below the folder, with a `.txt` of captions beside it, one a line. Videos named as in UCF-101 take their
class as caption.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .layouts import TABLE_NAMES, VIDEO_SUFFIXES, CaptionRow, read_table, read_tar, split_captions
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
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def open(self) -> str | io.BytesIO:
        """Return what PyAV opens: the path, or the tar member's bytes."""
        if self.offset < 0:
            return str(self.path)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


ScanResult = tuple[list[Video], list[ReportEntry]]
"""The videos found, and why other files are none."""


def scan(root: Path, *, table: Path | None = None, missing_caption: str = "skip") -> ScanResult:
    """Find all videos, in a stable order, and report each file that cannot be used.

    Args:
        root: folder, table or tar.
        table: a table that is stored elsewhere; its file names are relative to `root`.
        missing_caption: "skip" leaves out videos without a caption, "empty" gives them the empty prompt.

    Raises:
        ValueError: there is no such folder, a table has unknown columns, or nothing there could be a video.
    """
    if not root.exists():
        raise ValueError(f"{root} does not exist; give a folder of videos, a table of them, or tar shards")
    videos, entries = _layout(root, table)()
    if not videos and not entries:
        raise ValueError(
            f"{root} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))}), "
            "no metadata.csv or metadata.jsonl and no .tar"
        )
    if missing_caption == "skip":
        entries += [ReportEntry(video.id, _no_caption(video)) for video in videos if not video.captions]
        videos = [video for video in videos if video.captions]
    return _merge_repeated(videos), entries


def _layout(root: Path, table: Path | None) -> Callable[[], ScanResult]:
    if table is not None:
        return lambda: scan_table(root, table)
    if root.is_file():
        if root.suffix == ".tar":
            return lambda: scan_tars([root], root.parent)
        return lambda: scan_table(root.parent, root)
    if tars := sorted(root.glob("*.tar")):
        return lambda: scan_tars(tars, root)
    for name in TABLE_NAMES:
        if (found := root / name).exists():
            return lambda: scan_table(root, found)
    return lambda: scan_folder(root)


def _no_caption(video: Video) -> str:
    if video.offset >= 0:
        return "no caption: expected a .txt or .json member of the same name in the tar"
    return f"no caption: expected text in {video.path.with_suffix('.txt').name} beside it, or a table's row"


def _merge_repeated(videos: list[Video]) -> list[Video]:
    """Return one entry a name; repeated rows (MSR-VTT's sentences) add their captions."""
    merged: dict[str, Video] = {}
    for video in videos:
        known = merged.setdefault(video.id, video)
        more = tuple(text for text in video.captions if text not in known.captions)
        merged[video.id] = replace(known, captions=known.captions + more)
    return sorted(merged.values(), key=lambda video: video.id)


def scan_folder(root: Path) -> ScanResult:
    """Find every video below `root`; captions come from the `.txt` beside it, else from UCF-101's naming."""
    videos, entries = [], []
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        try:
            captions, group = _text_beside(path), name
            if not captions and (match := UCF_NAME.match(path.stem)):
                captions, group = (class_caption(match["kind"]),), f"{match['kind']}_g{match['group']}"
            videos.append(Video(name, path, captions, group, _stamp(path)))
        except (OSError, Unusable) as error:
            entries.append(ReportEntry(name, str(error)))
    return videos, entries


def class_caption(name: str) -> str:
    """Turn a class name into words: `ApplyEyeMakeup`, `YoYo`, `BMXRide` -> `apply eye makeup`, `yo yo`, `bmx ride`."""
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    return " ".join(words).lower()


def _text_beside(path: Path) -> tuple[str, ...]:
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        return ()
    try:
        return split_captions(beside.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unusable(f"{beside.name} is no UTF-8 text ({error.reason}); save it as UTF-8") from error


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def scan_table(root: Path, table: Path) -> ScanResult:
    """Find the videos that a table names and that exist below `root`."""
    videos, entries = [], []
    for row in read_table(table):
        path = next((file for name in row.files if (file := root / name).is_file()), None)
        if path is None:
            entries.append(ReportEntry(row.files[0], f"the table names it, but it is not below {root}"))
        elif not path.resolve().is_relative_to(root.resolve()):
            entries.append(ReportEntry(row.files[0], f"the table names it, but it is outside {root}"))
        else:
            videos.append(_row_video(root, path, row))
    return videos, entries


def _row_video(root: Path, path: Path, row: CaptionRow) -> Video:
    name = path.relative_to(root).as_posix()
    texts = tuple(dict.fromkeys(text for caption in row.captions for text in split_captions(caption)))
    return Video(name, path, texts, name, _stamp(path))


def scan_tars(tars: list[Path], root: Path) -> ScanResult:
    """Find the videos inside tar shards; their names start with the tar's path below `root`."""
    videos, entries = [], []
    for tar in tars:
        name = tar.relative_to(root).as_posix()
        try:
            stamp = _stamp(tar)
            for member in read_tar(tar):
                key = f"{name}/{member.name}"
                place = (member.offset, member.size)
                videos.append(Video(key, tar, member.captions, key, f"{stamp}-{member.offset}", *place))
        except (OSError, Unusable) as error:
            entries.append(ReportEntry(name, str(error)))
    return videos, entries
