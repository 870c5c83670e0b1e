"""Which text belongs to which frame of a video: one line for each part, such as `0: moving left`, `4-6: rising`."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from ..values import shown

LONGEST, DEEPEST = 4000, 100
"""Most characters of a text, and most brackets within brackets: the host's text encoder calls itself for each."""
EXAMPLE = "'4: moving right' or '4-6: moving right'"
_LINE = re.compile(r"\s*(\d{1,9})\s*(?:[-–]\s*(\d{1,9})\s*)?[:：](.*)")
"""A frame or a span of frames, a colon (also that of Chinese and Japanese keyboards), a text."""


class Part(NamedTuple):
    """A text and the frames that it is written for.

    Attributes:
        first: its first frame, from 0.
        last: its last frame; equal to the first where the line names one frame.
        text: the text.
    """

    first: int
    last: int
    text: str


class Mixed(NamedTuple):
    """The text of one frame: `1 - share` of one part and `share` of another."""

    before: int
    after: int
    share: float


def read_parts(lines: str, frames: int) -> list[Part]:
    """Read a schedule; empty lines are left out.

    Args:
        lines: the schedule.
        frames: number of frames of the video.

    Raises:
        ValueError: no line, a line that is none, a frame beyond the last one, or lines out of order; the message names
            the line.
    """
    numbered = [(number, line) for number, line in enumerate(lines.splitlines(), start=1) if line.strip()]
    if not numbered:
        raise ValueError(f"text has no line; expected one for each part of the video, such as {EXAMPLE}.")
    parts = [_read_line(number, line, frames) for number, line in numbered]
    for (before, after), (number, _) in zip(pairwise(parts), numbered[1:], strict=True):
        if after.first <= before.last:
            raise ValueError(
                f"line {number} of text begins at frame {after.first}, and the line before it is for frame "
                f"{before.last}: write the lines in the order of their frames, each frame once."
            )
    return parts


def _read_line(number: int, line: str, frames: int) -> Part:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(
            f"line {number} of text is {shown(line.strip())}; expected a frame or a span of frames, a colon and a "
            f"text, such as {EXAMPLE}."
        )
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise ValueError(f"line {number} of text is for frames {first}-{last}: write {last}-{first}.")
    if last >= frames:
        raise ValueError(
            f"line {number} of text is for frame {last}, and frames is {frames}, so the last frame is {frames - 1}: "
            "raise frames, or change the line."
        )
    return Part(first, last, found[3].strip())


def whole_texts(parts: list[Part], prefix: str, suffix: str) -> list[str]:
    """Return the parts' texts with what all of them share, joined by spaces.

    Raises:
        ValueError: a text of more than `LONGEST` characters, which would take the text encoder minutes, or of
            brackets deeper than `DEEPEST`.
    """
    texts = [" ".join(filter(None, (prefix.strip(), part.text, suffix.strip()))) for part in parts]
    longest = max(map(len, texts))
    if longest > LONGEST:
        raise ValueError(
            f"a line of text has {longest} characters with prefix and suffix; at most {LONGEST} were expected."
        )
    deepest = max(map(_depth, texts))
    if deepest > DEEPEST:
        raise ValueError(
            f"a line of text has {deepest} brackets within one another with prefix and suffix; at most {DEEPEST} were "
            "expected: write a weight as in (word:1.2)."
        )
    return texts


def _depth(text: str) -> int:
    r"""Return how many round brackets are open at once at most; `\(` and `\)` are letters, as for the host."""
    open_, deepest = 0, 0
    for letter in re.sub(r"\\[()]", "", text):
        open_ = max(0, open_ + (letter == "(") - (letter == ")"))
        deepest = max(deepest, open_)
    return deepest


def mix_parts(parts: list[Part], frames: int, *, blend: bool) -> list[Mixed]:
    """Return the text of each frame.

    Frames before the first part have its text, as those after the last part have the last one's.

    Args:
        parts: the parts, from `read_parts`.
        frames: number of frames of the video.
        blend: mix the texts of two parts in even steps over the frames between them; otherwise a text holds until the
            next part begins.
    """
    return [_mixed_at(parts, frame, blend) for frame in range(frames)]


def _mixed_at(parts: list[Part], frame: int, blend: bool) -> Mixed:
    before = max((place for place, part in enumerate(parts) if part.first <= frame), default=0)
    after = before + 1
    if not blend or after == len(parts) or frame <= parts[before].last:
        return Mixed(before, before, 0.0)
    start, end = parts[before].last, parts[after].first
    return Mixed(before, after, (frame - start) / (end - start))
