"""Schedules of texts: lines are read as written, every frame gets its text, bad lines are named."""

from __future__ import annotations

import pytest

from microcinema_core.frames.schedule import mix_parts, read_parts, whole_texts


def by_frame(lines: str, frames: int, *, blend: bool) -> list[str]:
    """Return each frame's text, or `one+share*other` where two are mixed."""
    parts = read_parts(lines, frames)
    return [
        parts[mixed.before].text
        if mixed.before == mixed.after
        else f"{parts[mixed.before].text}+{mixed.share:g}*{parts[mixed.after].text}"
        for mixed in mix_parts(parts, frames, blend=blend)
    ]


def test_a_text_holds_until_the_next_one_begins() -> None:
    assert by_frame("0: a\n3: b", 5, blend=False) == ["a", "a", "a", "b", "b"]


def test_texts_are_blended_in_even_steps() -> None:
    assert by_frame("0: a\n4: b", 6, blend=True) == ["a", "a+0.25*b", "a+0.5*b", "a+0.75*b", "b", "b"]


def test_a_span_keeps_its_text_and_the_gap_is_blended() -> None:
    lines = "0-1: a\n4-5: b\n6: c"
    assert by_frame(lines, 7, blend=True)[:5] == ["a", "a", f"a+{1 / 3:g}*b", f"a+{2 / 3:g}*b", "b"]
    assert by_frame(lines, 7, blend=True)[5:] == ["b", "c"]
    assert by_frame(lines, 7, blend=False) == ["a", "a", "a", "a", "b", "b", "c"]


def test_frames_before_the_first_line_have_its_text() -> None:
    assert by_frame("2: a\n3: b", 4, blend=True) == ["a", "a", "a", "b"]


def test_how_lines_may_be_written() -> None:
    """Spaces, empty lines, colons in the text, an en dash, a full-width colon, no text."""
    lines = "\n  0 :  a: b \r\n\n 1 – 2 : c\n3：\n"
    assert [tuple(part) for part in read_parts(lines, 4)] == [(0, 0, "a: b"), (1, 2, "c"), (3, 3, "")]


def test_what_all_lines_share() -> None:
    parts = read_parts("0: moving left\n2:", 3)
    assert whole_texts(parts, " a face ", "on white") == ["a face moving left on white", "a face on white"]
    assert whole_texts(parts, "", "") == ["moving left", ""]
    with pytest.raises(ValueError, match=r"has 50[0-9]+ characters with prefix and suffix; at most 4000"):
        whole_texts(parts, "x" * 5000, "")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "text has no line; expected one for each part"),
        (" \n\n", "text has no line"),
        ("0: a\nmoving right", "line 2 of text is 'moving right'; expected a frame or a span"),
        ("\n\nx: a", "line 3 of text is 'x: a'; expected"),
        ("-1: a", "line 1 of text is '-1: a'; expected"),
        ("0.5: a", "line 1 of text is '0.5: a'; expected"),
        (f"{'9' * 5000}: a", "line 1 of text is '9999.*expected"),
        ("0: a\n9: b", "line 2 of text is for frame 9, and frames is 9, so the last frame is 8"),
        ("0-9: a", "line 1 of text is for frame 9"),
        ("0: a\n6-4: b", "line 2 of text is for frames 6-4: write 4-6"),
        (
            "0: a\n4: b\n2: c",
            "line 3 of text begins at frame 2, and the line before it is for frame 4: write the",
        ),
        ("0-3: a\n\n3: b", "line 3 of text begins at frame 3, and the line before it is for frame 3"),
    ],
)
def test_bad_lines_are_named(lines: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_parts(lines, 9)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "("])
def test_brackets_deeper_than_the_text_encoder_can_read(prefix: str) -> None:
    """The host's reader of weights calls itself for each bracket; escaped ones and closed ones do not add up."""

    def texts(line: str) -> list[str]:
        return whole_texts(read_parts(f"0: {line}", 1), prefix, "")

    for line in ("(" * 99 + "a:2" + ")" * 99, "(a:1.2)" * 500, r"\(" * 500 + "a" + r"\)" * 500, ")" * 500):
        assert texts(line)
    for deep in (101, 1900):
        with pytest.raises(ValueError, match=f"has {deep + bool(prefix)} brackets within one another"):
            texts("(" * deep + "a" + ")" * deep)
