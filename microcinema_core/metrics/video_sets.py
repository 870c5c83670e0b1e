"""The two sets of videos that are compared, with the captions and the key of each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..data.videos.report import ReportEntry
from ..data.videos.sources import Video, scan
from ..messages import counted, one_line
from .clip_reading import fixed_position

LEAST_CLIPS = 2


@dataclass(frozen=True)
class VideoSet:
    """Videos, the group of each, files that are none, and rows of the table of captions that cannot be read."""

    name: str
    videos: list[Video]
    keys: list[str]
    entries: list[ReportEntry]
    bad_rows: list[ReportEntry] = field(default_factory=list)


def read_set(
    name: str, path: Path, key: str, most: int | None = None, *, table: Path | None = None
) -> VideoSet:
    """List the videos of a folder, table or shards, with the key of each; at most `most`, drawn by their names.

    A `table` gives the videos their captions; it does not choose among them.

    Raises:
        ValueError: it does not exist, or holds fewer than two videos; or the table cannot be read.
    """
    videos, entries = scan(path, missing_caption="empty")
    if len(videos) < LEAST_CLIPS:
        why = f" ({one_line(entries[0].file)}: {entries[0].reason})" if entries else ""
        raise ValueError(
            f"{one_line(path)} holds {counted(len(videos), 'video')}; at least {LEAST_CLIPS} are needed{why}"
        )
    bad_rows: list[ReportEntry] = []
    if table is not None:
        videos, bad_rows = _with_captions(videos, path if path.is_dir() else path.parent, table)
    drawn = {video.id for video in sorted(videos, key=lambda video: fixed_position(video.id))[:most]}
    kept = [video for video in videos if video.id in drawn]
    return VideoSet(name, kept, [key_of(video, key) for video in kept], entries, bad_rows)


def _with_captions(videos: Sequence[Video], root: Path, table: Path) -> tuple[list[Video], list[ReportEntry]]:
    """Return the videos with the captions of a table, whose file names are relative to `root`, and its bad rows."""
    if any(video.offset >= 0 for video in videos):
        raise ValueError(
            f"{one_line(table)} cannot caption videos inside of tar shards; put a .txt beside each of them in the tar"
        )
    named, entries = scan(root, table=table, missing_caption="empty")
    captions = {video.id: video.captions for video in named}
    bad_rows = [entry for entry in entries if entry.file.startswith(f"{table.name}, ")]  # others name videos
    return [replace(video, captions=captions.get(video.id, ())) for video in videos], bad_rows


def refuse_uncaptioned(one: VideoSet, table: Path | None) -> None:
    """Refuse a set with videos that have no caption: CLIPSIM of the others would be that of another set.

    It could not be compared with that of a model whose captions are complete, and would stand beside an FVD of more
    videos. A missing caption is a slip, cheap to mend before hours of measuring.

    Raises:
        ValueError: the message counts the videos, and names the first, and the first row that cannot be read.
    """
    if silent := [video.id for video in one.videos if not video.captions]:
        where = "" if table is None else f" in {one_line(table)}"
        bad = "".join(f" ({one_line(entry.file)}: {entry.reason})" for entry in one.bad_rows[:1])
        raise ValueError(
            f"{len(silent)} of the {len(one.videos)} videos of {one.name} have no caption{where}, the first "
            f"{one_line(silent[0])}{bad}; CLIPSIM needs all: add them, or measure without --clipsim"
        )


def key_of(video: Video, key: str) -> str:
    """Return the group of a video: its source ("group"), its first "caption", or its "folder"."""
    if key == "caption":
        return video.captions[0] if video.captions else video.id
    if key == "folder":
        return video.id.rpartition("/")[0]
    return video.group
