"""Sources of videos and captions: every layout that the scan supports, and the report on other files."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from microcinema_core.data.videos.layouts import read_table
from microcinema_core.data.videos.report import ReportEntry
from microcinema_core.data.videos.sources import class_caption, scan
from tests.data import video_world


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def captions(root: Path, **settings: object) -> dict[str, tuple[str, ...]]:
    return {video.id: video.captions for video in scan(root, **settings)[0]}  # type: ignore[arg-type]


def test_texts_beside_the_videos(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "in" / "b.MOV", tmp_path / "c.mp4", tmp_path / "notes.pdf")
    (tmp_path / "a.txt").write_text("a cat\n\n  a   pet \na cat\n", encoding="utf-8")
    (tmp_path / "in" / "b.txt").write_text("ein Müller", encoding="utf-8")
    assert captions(tmp_path) == {"a.mp4": ("a cat", "a pet"), "in/b.MOV": ("ein Müller",)}
    [line] = scan(tmp_path)[1]
    assert line.file == "c.mp4" and "expected text in c.txt beside it" in line.reason
    assert captions(tmp_path, missing_caption="empty")["c.mp4"] == ()


def test_a_caption_that_is_no_text(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    videos, [line] = scan(tmp_path)
    assert not videos and "a.txt is no UTF-8 text" in line.reason


def test_webvid(tmp_path: Path) -> None:
    touch(tmp_path / "videos" / "01_50" / "1066674784.mp4", tmp_path / "01_50" / "77.mp4")
    rows = [
        "videoid,contentUrl,duration,page_dir,name",
        '1066674784,https://x/1.mp4,PT00H00M10S,01_50,"Travel blogger, shooting"',
        "77,https://x/2.mp4,PT00H00M14S,01_50,Waves",
        "78,https://x/3.mp4,PT00H00M14S,01_50,Never fetched",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    assert captions(tmp_path) == {
        "videos/01_50/1066674784.mp4": ("Travel blogger, shooting",),
        "01_50/77.mp4": ("Waves",),
    }
    [line] = scan(tmp_path)[1]
    assert line.file == "01_50/78.mp4" and "not below" in line.reason


def test_msrvtt_as_lines_of_sentences_and_as_its_own_json(tmp_path: Path) -> None:
    touch(tmp_path / "video0.mp4", tmp_path / "video7.mp4")
    rows = [
        {"video_id": "video0", "video": "video0.mp4", "caption": ["a man talks", "someone speaks"]},
        {"key": "ret0", "vid_key": "msr7", "video_id": "video7", "sentence": "a dog runs"},
        {"video_id": "video7", "sentence": "an animal"},
    ]
    expected = {"video0.mp4": ("a man talks", "someone speaks"), "video7.mp4": ("a dog runs", "an animal")}
    table = tmp_path / "metadata.jsonl"
    table.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert captions(tmp_path) == expected
    table.unlink()
    sentences = [
        {"caption": text, "video_id": name[:-4], "sen_id": number}
        for number, (name, text) in enumerate((n, t) for n, texts in expected.items() for t in texts)
    ]
    own = tmp_path / "videodatainfo.json"
    own.write_text(json.dumps({"info": {}, "videos": [], "sentences": sentences}))
    assert captions(tmp_path, table=own) == captions(own) == expected


def test_ucf101(tmp_path: Path) -> None:
    touch(tmp_path / "YoYo" / "v_YoYo_g01_c02.avi", tmp_path / "TaiChi" / "v_TaiChi_g25_c04.avi")
    videos, lines = scan(tmp_path)
    assert not lines
    assert [(video.captions, video.group) for video in videos] == [
        (("tai chi",), "TaiChi_g25"),
        (("yo yo",), "YoYo_g01"),
    ]
    assert class_caption("ApplyEyeMakeup") == "apply eye makeup" and class_caption("BMXRide") == "bmx ride"


def test_tar_shards(tmp_path: Path) -> None:
    members = {
        "0001.mp4": b"first",
        "0001.txt": b"a boat\nsea",
        "0001.jpg": b"x",
        "sub/2.json": json.dumps({"caption": "a tree", "fps": 3}).encode(),
        "sub/2.webm": b"second video",
        "3.mp4": b"third",
        "4.txt": b"no video",
    }
    video_world.to_tar(tmp_path / "000.tar", members)
    (tmp_path / "001.tar").write_bytes(b"no tar" * 200)
    videos, lines = scan(tmp_path)
    assert {video.id: video.captions for video in videos} == {
        "000.tar/0001.mp4": ("a boat", "sea"),
        "000.tar/sub/2.webm": ("a tree",),
    }
    assert [opened.read() for video in videos if not isinstance(opened := video.open(), str)] == [
        b"first",
        b"second video",
    ]
    assert sorted(line.file for line in lines) == ["000.tar/3.mp4", "001.tar"]


def test_shards_that_webdataset_wrote(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as writer:
        writer.write({"__key__": "000000001", "mp4": b"clip", "txt": "a boat", "json": {"caption": "a boat"}})
    assert captions(tmp_path) == {"0.tar/000000001.mp4": ("a boat",)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "t.csv",
            "url,label\na,b\n",
            "row 1: the columns are label, url; expected file_name and text; or WebVid's",
        ),
        ("t.jsonl", '{"file_name": "a.mp4"', "line 1 is no JSON"),
        ("t.jsonl", "[1]", "is a list; expected an object"),
        ("t.json", '{"videos": []}', "holds videos; expected MSR-VTT's list `sentences`"),
        ("t.xlsx", "", "is no table; expected .csv, .tsv, .jsonl or .json"),
    ],
)
def test_tables_of_another_kind(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        list(read_table(tmp_path / name))


def test_a_table_reaches_nothing_outside_its_folder(tmp_path: Path) -> None:
    touch(tmp_path / "secret.mp4")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text\n../secret.mp4,x\n")
    videos, [line] = scan(tmp_path / "set")
    assert not videos and "outside" in line.reason


def test_a_place_without_videos(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no video .* no metadata\.csv"):
        scan(tmp_path)
    with pytest.raises(ValueError, match="does not exist; give a folder"):
        scan(tmp_path / "absent")


def test_a_changed_file_or_caption_has_another_key(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text("one")
    [before] = scan(tmp_path)[0]
    assert scan(tmp_path)[0][0].key == before.key
    (tmp_path / "a.txt").write_text("two")
    assert scan(tmp_path)[0][0].key != before.key
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "a.mp4").write_bytes(b"longer")
    assert scan(tmp_path)[0][0].key != before.key


DEEP = "[" * 100_000
LONG = "n" * 300
GOOD = '{"file_name": "a.mp4", "text": "good"}'


def told(root: Path) -> dict[str, str]:
    """Return the reasons of the scan's report by file."""
    return {entry.file: entry.reason for entry in scan(root)[1]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"file_name": "a.mp4"', "line 2 is no JSON"),
        ("[1]", "line 2 is a list; expected an object"),
        ('{"url": "x"}', "line 2: the columns are url; expected file_name and text"),
        (DEEP, "line 2 is no JSON"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "line 2 "),
        ('{"file_name": "b.mp4", "text": "\\ud800"}', "line 2: text is no UTF-8 text"),
        ('{"file_name": "\\ud800.mp4", "text": "x"}', "line 2: file_name is no UTF-8 text"),
        ('{"file_name": {"a": 1}, "text": "x"}', "line 2: file_name is a dict; expected a text"),
        ('{"file_name": "b.mp4", "text": [["x"]]}', "line 2: text is a list; expected a text"),
        ('{"file_name": "b.mp4", "text": true}', "line 2: text is a bool; expected a text"),
        ('{"file_name": NaN, "text": "x"}', "line 2: the columns are file_name, text; expected"),
        ('{"file_name": 1%s, "text": "x"}' % ("0" * 5000), "line 2 is no JSON"),
    ],
)
def test_one_odd_line_is_told_and_the_others_are_read(tmp_path: Path, row: str, words: str) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4")
    last = GOOD.replace("a.mp4", "c.mp4")
    (tmp_path / "metadata.jsonl").write_text("\n".join([GOOD, row, last]))
    assert captions(tmp_path) == {"a.mp4": ("good",), "c.mp4": ("good",)}
    reasons = told(tmp_path)
    assert set(reasons) == {"metadata.jsonl, line 2", "b.mp4"} and words in reasons["metadata.jsonl, line 2"]


def test_videos_that_their_folders_table_forgets_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "in" / "c.mp4", tmp_path / "notes.pdf")
    (tmp_path / "metadata.jsonl").write_text(GOOD.replace("a.mp4", "./a.mp4"))
    why = "metadata.jsonl has no readable row for it"
    assert told(tmp_path) == {"b.mp4": why, "in/c.mp4": why}
    (tmp_path / "metadata.jsonl").rename(tmp_path / "part.jsonl")
    assert not scan(tmp_path, table=tmp_path / "part.jsonl")[1], "a table that is named chooses the videos"


def test_a_folder_in_a_tables_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").mkdir()
    for given in ({}, {"table": tmp_path / "metadata.csv"}):
        with pytest.raises(ValueError, match=r"metadata.csv is a folder; expected a .csv"):
            scan(tmp_path, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "words"), [(f"{LONG}.mp4", "not below"), ("x\\u0000y", "not below")])
def test_a_name_that_no_file_can_have_is_told(tmp_path: Path, name: str, words: str) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / "metadata.jsonl").write_text(f'{GOOD}\n{{"file_name": "{name}", "text": "x"}}')
    assert captions(tmp_path) == {"a.mp4": ("good",)}
    [reason] = told(tmp_path).values()
    assert words in reason


@pytest.mark.parametrize("value", ["NaN", "null", '""', "[]", "[NaN, null]"])
def test_an_empty_cell_is_a_missing_caption(tmp_path: Path, value: str) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "metadata.jsonl").write_text(f'{GOOD}\n{{"file_name": "b.mp4", "text": {value}}}')
    assert captions(tmp_path) == {"a.mp4": ("good",)}
    assert "no caption" in told(tmp_path)["b.mp4"]


def test_an_id_with_a_decimal_point_is_the_id(tmp_path: Path) -> None:
    touch(tmp_path / "1066674784.mp4")
    (tmp_path / "metadata.jsonl").write_text('{"videoid": 1066674784.0, "name": "x"}')
    assert captions(tmp_path) == {"1066674784.mp4": ("x",)}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            "b.mp4,Travel blogger, shooting",
            "row 2 has 3 cells and the table 2 columns; put text with ',' in quotes",
        ),
        ("b.mp4", "not below"),
        ("b.mp4," + "x" * 200_000, "row 2 cannot be read (field larger than field limit"),
        (",text", "row 2: the columns are"),
    ],
)
def test_one_odd_row_of_a_csv_is_told(tmp_path: Path, row: str, words: str) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "c.mp4")
    (tmp_path / "metadata.csv").write_text(f"file_name,text\na.mp4,good\n\n{row}\nc.mp4,good\n")
    assert captions(tmp_path) == {"a.mp4": ("good",), "c.mp4": ("good",)}
    [reason] = told(tmp_path).values()
    assert words in reason


def test_bytes_that_are_no_text_cost_their_row_alone(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "metadata.csv").write_bytes("file_name,text\na.mp4,gr\xfcn\nb.mp4,blue\n".encode("latin-1"))
    assert captions(tmp_path) == {"b.mp4": ("blue",)}
    assert "row 1: text is no UTF-8 text" in told(tmp_path)["metadata.csv, row 1"]
    (tmp_path / "metadata.csv").write_text("file_name,text\na.mp4,x\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"metadata\.csv is no UTF-8 text"):
        scan(tmp_path)


def test_a_quote_that_is_never_closed_takes_no_rows_silently(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{name}.mp4" for name in "abc"))
    (tmp_path / "metadata.csv").write_text('file_name,text\na.mp4,5" pipe\nb.mp4,"an open\nc.mp4,lost\n')
    assert captions(tmp_path) == {"a.mp4": ('5" pipe',)}
    assert "row 2 opens a quote that is never closed" in told(tmp_path)["metadata.csv, row 2"]


def test_msrvtt_with_an_odd_sentence(tmp_path: Path) -> None:
    touch(tmp_path / "video0.mp4")
    rows = [{"video_id": "video0", "caption": "good"}, 7, None, {"video_id": "video0", "caption": {"a": 1}}]
    (tmp_path / "x.json").write_text(json.dumps({"sentences": rows}))
    videos, entries = scan(tmp_path / "x.json")
    assert [video.captions for video in videos] == [("good",)] and len(entries) == 3
    (tmp_path / "x.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"x\.json is no JSON"):
        scan(tmp_path / "x.json")


def test_a_table_or_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.csv does not exist; give a \.csv"):
        scan(tmp_path, table=tmp_path / "absent.csv")
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(ValueError, match=r"metadata\.csv holds no row; expected file_name and text"):
        scan(tmp_path)


def linked(root: Path) -> Path:
    """Write a folder with links to files and folders outside of it and inside."""
    outside, clips = root / "outside", root / "clips"
    touch(
        outside / "secret.mp4",
        outside / "inner" / "secret.mp4",
        clips / "a.mp4",
        clips / "b.mp4",
        clips / "c.mp4",
    )
    (outside / "secret.txt").write_text("secret words")
    for name in ("a", "c"):
        (clips / f"{name}.txt").write_text("good")
    (clips / "again.mp4").symlink_to(clips / "a.mp4")
    (clips / "again.txt").symlink_to(clips / "a.txt")
    (clips / "b.txt").symlink_to(outside / "secret.txt")
    (clips / "out.mp4").symlink_to(outside / "secret.mp4")
    (clips / "out.txt").write_text("x")
    (clips / "folder").symlink_to(outside)
    (clips / "nowhere.mp4").symlink_to(clips / "absent.mp4")
    (clips / "circle.mp4").symlink_to(clips / "circle.mp4")
    return clips


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    clips = linked(tmp_path)
    assert captions(clips) == {"a.mp4": ("good",), "again.mp4": ("good",), "c.mp4": ("good",)}
    reasons = told(clips)
    assert set(reasons) == {"b.mp4", "out.mp4", "folder", "nowhere.mp4", "circle.mp4"}
    assert all("is a link that leads out of" in reasons[name] for name in ("b.mp4", "out.mp4", "folder"))
    assert "b.txt is a link" in reasons["b.mp4"] and "leads nowhere" in reasons["nowhere.mp4"]
    (tmp_path / "alias").symlink_to(clips)
    assert set(captions(tmp_path / "alias")) == {"a.mp4", "again.mp4", "c.mp4"}, (
        "the folder itself may be a link"
    )


def test_shards_and_tables_that_are_links_out_are_refused(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    video_world.to_tar(tmp_path / "secret.tar", {"1.mp4": b"x", "1.txt": b"secret"})
    video_world.to_tar(clips / "0.tar", {"1.mp4": b"x", "1.txt": b"good"})
    (clips / "1.tar").symlink_to(tmp_path / "secret.tar")
    assert captions(clips) == {"0.tar/1.mp4": ("good",)} and "leads out of" in told(clips)["1.tar"]
    assert captions(clips / "1.tar") == {"1.tar/1.mp4": ("secret",)}, "it was named itself"
    (tmp_path / "table.csv").write_text("file_name,text\na.mp4,x\n")
    touch(tmp_path / "set" / "a.mp4")
    (tmp_path / "set" / "metadata.csv").symlink_to(tmp_path / "table.csv")
    with pytest.raises(ValueError, match=r"metadata\.csv is a link that leads out .*--table"):
        scan(tmp_path / "set")


@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    touch(tmp_path / "a.mp4", tmp_path / name)
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / name).with_suffix(".txt").write_text("x")
    assert captions(tmp_path) == {"a.mp4": ("good",)}
    assert told(tmp_path) == {name: "its name is no UTF-8 text; rename it"}


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid"), reason="needs modes")
def test_what_is_no_file_or_too_long_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "a.txt").write_text("x" * (2 << 20))
    reasons = told(tmp_path)
    assert "no file" in reasons["pipe.mp4"] and "a.txt is longer than" in reasons["a.mp4"]


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_odd_members_are_told_and_the_others_are_used(tmp_path: Path) -> None:
    tar_of(
        tmp_path / "0.tar",
        (info("1.mp4"), b"first"),
        (info("1.txt"), b"good"),
        (info("2.mp4"), b"second"),
        (info("2.json"), DEEP.encode()),
        (info("3.mp4"), b"third"),
        (info("3.txt"), b"\xff\xfe"),
        (info("3.json"), b'{"caption": "good"}'),
        (info("4.mp4"), b"fourth"),
        (info("4.json"), b'{"caption": "\\ud800"}'),
        (info("5.mp4", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (info("5.txt"), b"x"),
        (info(f"{LONG}.mp4"), b"long"),
        (info(f"{LONG}.txt"), b"good"),
        (info(os.fsdecode(b"caf\xe9.mp4")), b"bytes"),
        (info(os.fsdecode(b"caf\xe9.txt")), b"x"),
        (info("6.mp4"), b"sixth"),
        (info("6.webm"), b"sixth, again"),
        (info("6.txt"), b"good"),
        (info("1.mp4"), b"first, again"),
        (info("1.txt"), b"good"),
        (info("7.mp4"), b"last"),
        (info("7.txt"), b"good"),
    )
    videos, entries = scan(tmp_path)
    assert {video.id.removeprefix("0.tar/"): video.captions for video in videos} == dict.fromkeys(
        ("1.mp4", "3.mp4", f"{LONG}.mp4", "6.mp4", "6.webm", "7.mp4"), ("good",)
    )
    reasons = {entry.file.removeprefix("0.tar/"): entry for entry in entries}
    assert "2.json is no JSON" in reasons["2.mp4"].reason and "no UTF-8 text" in reasons["4.mp4"].reason
    assert "3.txt is no UTF-8 text" in reasons["3.mp4"].reason and not reasons["3.mp4"].skipped
    assert "a link or a device" in reasons["5.mp4"].reason
    assert reasons[os.fsdecode(b"caf\xe9.mp4")].reason == "its name is no UTF-8 text; rename it"
    assert "several members of this name" in reasons["1.mp4"].reason and len(entries) == 6


def damaged(data: bytes, how: str) -> bytes:
    """Return the bytes of a tar of three members of a block each, damaged in the third's header."""
    third = 4 * 512
    if how == "header":
        return data[:third] + b"\x07" * 512 + data[third + 512 :]
    if how == "cut at a header":
        return data[:third]
    if how == "cut in a header":
        return data[: third + 100]
    if how == "cut in a file":
        return data[: third + 512 + 3]
    header = bytearray(data[third : third + 512])  # a negative size, which goes back to the start for ever
    header[124:136] = (-(third + 512)).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:third] + bytes(header) + data[third + 512 :]


@pytest.mark.parametrize(
    "how", ["header", "cut at a header", "cut in a header", "cut in a file", "negative size"]
)
def test_a_damaged_tar_is_told_and_what_comes_before_is_used(tmp_path: Path, how: str) -> None:
    path = video_world.to_tar(tmp_path / "0.tar", {"1.mp4": b"x", "1.txt": b"good", "2.mp4": b"y"})
    path.write_bytes(damaged(path.read_bytes(), how))
    videos, entries = scan(tmp_path)
    assert [video.id for video in videos] == ["0.tar/1.mp4"] and videos[0].captions == ("good",)
    of_the_tar = [entry for entry in entries if entry.file == "0.tar"]
    assert len(of_the_tar) == 1 and of_the_tar[0].reason.startswith("0.tar ")
    assert isinstance(of_the_tar[0], ReportEntry) and not of_the_tar[0].skipped
