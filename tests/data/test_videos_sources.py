"""Sources of videos and captions: every layout that the scan supports, and the report on other files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from microcinema_core.data.videos.layouts import read_table
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
