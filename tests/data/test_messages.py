"""Names and errors in messages: on one line, in characters that any output takes, and never an error themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from microcinema_core.data.videos.report import ReportEntry, read_report, write_report
from microcinema_core.guarded import guarded
from microcinema_core.messages import LONGEST, counted, is_text, of_file, one_line, reason

NAMES = (
    *("plain Müller 猫.mp4", "two\nlines\r\t.mp4", "lone \ud800 surrogate"),
    *("bytes \udcff", "\u2028\u2029\x85\x0b", "nul\0"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_line_that_every_output_takes(name: str) -> None:
    shown = one_line(name)
    assert len(shown.splitlines()) == 1
    shown.encode("utf-8")
    assert one_line(shown) == shown
    if name == NAMES[0]:
        assert shown == name


def test_an_error_s_words_are_kept_and_its_text_may_fail() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert reason(FileNotFoundError(2, "No such file", "/secret\n")) == "No such file"
    assert reason(ValueError()) == "ValueError" and reason(ValueError("a\nb")) == r"a\nb"
    assert "Odd" in reason(Odd()) and len(reason(ValueError("x" * 9999))) < LONGEST + 5
    assert is_text("ä\n") and not is_text("\ud800")


def test_an_error_of_a_file_is_told_by_its_name_without_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> int:
        (tmp_path / "new").touch()
        (tmp_path / "new").rename(tmp_path)
        return 0

    assert guarded(lambda: len(tmp_path.read_bytes()), extra="train") == guarded(write, extra="train") == 1
    for told in capsys.readouterr().err.splitlines():
        assert told.startswith(f"{tmp_path}: ") and "Errno" not in told
    assert guarded(lambda: exec("raise OSError('no room: make some')"), extra="train") == 1  # noqa: S102
    assert capsys.readouterr().err.startswith("no room: make some; finished work is kept")


def test_an_error_without_a_file_is_told_by_the_folder() -> None:
    assert of_file(OSError(28, "No space left"), Path("out")) == "out: No space left"
    assert of_file(OSError(28, "No space left", "a", None, "b"), Path("out")) == "b: No space left"
    assert of_file(OSError("two of three units failed"), Path("out")) == "two of three units failed"


def test_a_number_has_the_form_of_its_noun() -> None:
    assert [counted(number, "file") for number in range(3)] == ["0 files", "1 file", "2 files"]


def test_a_report_keeps_every_name(tmp_path) -> None:
    entries = [ReportEntry(name, f"why {name}", skipped=bool(place % 2)) for place, name in enumerate(NAMES)]
    write_report(tmp_path / "report.jsonl", entries)
    assert read_report(tmp_path / "report.jsonl") == entries
    lines = (tmp_path / "report.jsonl").read_bytes().split(b"\n")
    assert len(lines) == len(NAMES) + 1 and "Müller".encode() in lines[0]


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"file": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_report_says_so(tmp_path, text: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(text)
    [entry] = read_report(tmp_path / "x.jsonl")
    assert entry.file == "x.jsonl" and "damaged" in entry.reason and not entry.skipped
