"""The videos of a folder, a table or tar shards, with their captions. Nothing is decoded here.

Layouts, recognised by what is there: tar shards of WebDataset; a table (`metadata.csv`, `.jsonl` or MSR-VTT's
`.json`) with the columns of WebVid, MSR-VTT or `file_name` and `text`; UCF-101's folders, whose class names become
captions; else every video below the folder, with a `.txt` of captions beside it, one a line.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .report import Line, Unusable
from .tables import TABLES, TableRow, read_table

SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("3gp", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg"),
        *("mpg", "mts", "ogv", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
UCF_NAME = re.compile(r"v_(?P<kind>[A-Za-z0-9]+)_g(?P<group>\d+)_c\d+$")


@dataclass(frozen=True)
class Video:
    """One video file, or a member of a tar.

    id: its name in reports and scores. captions: at least one, unless captions may be missing. group: what must not
    be split between training and test, such as all takes of one scene. stamp: changes when the file does.
    offset, size: the bytes of `path` that hold it; offset -1 means the whole file.
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
        """A hash of everything that its clips and scores depend on in the input."""
        text = "\0".join((self.id, self.stamp, self.group, *self.captions))
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def open(self) -> str | io.BytesIO:
        """What PyAV opens: the path, or the member's bytes."""
        if self.offset < 0:
            return str(self.path)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


Found = tuple[list[Video], list[Line]]


def scan(root: Path, *, table: Path | None = None, missing_caption: str = "skip") -> Found:
    """All videos in a stable order, and a line for each that cannot be one.

    root: folder, table or tar. table: a table that lies elsewhere; its file names are below `root`.
    missing_caption: "skip", or "empty" for the empty prompt.

    Raises:
        ValueError: no such folder, a table of unknown columns, or nothing in it that could be a video.
    """
    if not root.exists():
        raise ValueError(f"{root} does not exist; give a folder of videos, a table of them, or tar shards")
    videos, lines = _layout(root, table)()
    if not videos and not lines:
        raise ValueError(
            f"{root} holds no video ({', '.join(sorted(SUFFIXES))}), no metadata.csv or metadata.jsonl and no .tar"
        )
    if missing_caption == "skip":
        lines += [Line(video.id, _no_caption(video)) for video in videos if not video.captions]
        videos = [video for video in videos if video.captions]
    return _distinct(videos), lines


def _layout(root: Path, table: Path | None) -> Callable[[], Found]:
    if table is not None:
        return lambda: from_table(root, table)
    if root.is_file():
        if root.suffix == ".tar":
            return lambda: _from_tars([root], root.parent)
        return lambda: from_table(root.parent, root)
    if tars := sorted(root.glob("*.tar")):
        return lambda: _from_tars(tars, root)
    for name in TABLES:
        if (found := root / name).exists():
            return lambda: from_table(root, found)
    return lambda: from_folder(root)


def _no_caption(video: Video) -> str:
    if video.offset >= 0:
        return "no caption: expected a .txt or .json member of the same name in the tar"
    return f"no caption: expected text in {video.path.with_suffix('.txt').name} beside it, or a table's row"


def _distinct(videos: list[Video]) -> list[Video]:
    """One entry a name; the captions of repeated rows (MSR-VTT's sentences) are put together."""
    merged: dict[str, Video] = {}
    for video in videos:
        held = merged.get(video.id)
        if held is None:
            merged[video.id] = video
        elif more := tuple(text for text in video.captions if text not in held.captions):
            merged[video.id] = Video(
                held.id, held.path, held.captions + more, held.group, held.stamp, held.offset, held.size
            )
    return sorted(merged.values(), key=lambda video: video.id)


def from_folder(root: Path) -> Found:
    """Every video below `root`: captions from the `.txt` beside it, else from UCF-101's naming."""
    videos, lines = [], []
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        try:
            captions, group = _sidecar(path), name
            if not captions and (match := UCF_NAME.match(path.stem)):
                captions, group = (class_caption(match["kind"]),), f"{match['kind']}_g{match['group']}"
            videos.append(Video(name, path, captions, group, _stamp(path)))
        except (OSError, Unusable) as error:
            lines.append(Line(name, str(error)))
    return videos, lines


def class_caption(name: str) -> str:
    """`ApplyEyeMakeup` -> `apply eye makeup`; runs of capitals stay words (`YoYo`, `TaiChi`, `BMXRide`)."""
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    return " ".join(words).lower()


def captions_of(text: str) -> tuple[str, ...]:
    """The lines of a text that hold something, white space made single, each once."""
    rows = (" ".join(row.split()) for row in text.splitlines())
    return tuple(dict.fromkeys(row for row in rows if row))


def _sidecar(path: Path) -> tuple[str, ...]:
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        return ()
    try:
        return captions_of(beside.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unusable(f"{beside.name} is no UTF-8 text ({error.reason}); save it as UTF-8") from error


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def from_table(root: Path, table: Path) -> Found:
    """The rows of a table whose files exist below `root`."""
    videos, lines = [], []
    for row in read_table(table):
        path = next((file for name in row.files if (file := root / name).is_file()), None)
        if path is None:
            lines.append(Line(row.files[0], f"the table names it, but it is not below {root}"))
        elif not path.resolve().is_relative_to(root.resolve()):
            lines.append(Line(row.files[0], f"the table names it, but it lies outside {root}"))
        else:
            videos.append(_row_video(root, path, row))
    return videos, lines


def _row_video(root: Path, path: Path, row: TableRow) -> Video:
    name = path.relative_to(root).as_posix()
    texts = tuple(dict.fromkeys(text for caption in row.captions for text in captions_of(caption)))
    return Video(name, path, texts, row.group or name, _stamp(path))


def _from_tars(tars: list[Path], root: Path) -> Found:
    from .tars import samples

    videos, lines = [], []
    for tar in tars:
        name = tar.relative_to(root).as_posix()
        try:
            stamp = _stamp(tar)
            for sample in samples(tar):
                key = f"{name}/{sample.name}"
                spot = (sample.offset, sample.size)
                videos.append(Video(key, tar, sample.captions, key, f"{stamp}-{sample.offset}", *spot))
        except (OSError, Unusable) as error:
            lines.append(Line(name, str(error)))
    return videos, lines
