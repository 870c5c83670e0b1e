"""The blind comparison of two sets of videos: what people see, what stays secret, and the count of their answers."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from microcinema_core.metrics.preference import __main__ as command
from microcinema_core.metrics.preference.study import read_study
from microcinema_core.metrics.preference.tally import tally
from tests.data.video_world import write_video

RED, BLUE = (200, 30, 30), (30, 30, 200)


def write_plain(folder: Path, count: int, colour: tuple[int, int, int], *, captions: bool = True) -> Path:
    """Write wide videos of one colour in their middle square and of another beside it."""

    def draw(_: int, width: int, height: int) -> np.ndarray:
        page = np.zeros((height, width, 3), np.uint8)
        page[:, (width - height) // 2 : (width + height) // 2] = colour
        return page

    for number in range(count):
        write_video(folder / f"clip {number}.mp4", frames=5, fps=8, size=(96, 48), draw=draw)
        if captions:
            (folder / f"clip {number}.txt").write_text(f"</script> number {number}")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Red videos, blue videos, and a place for the study."""
    return (
        write_plain(tmp_path / "crimson", 5, RED),
        write_plain(tmp_path / "azure", 6, BLUE),
        tmp_path / "study",
    )


def make(folders: tuple[Path, Path, Path], *more: str) -> int:
    return command.main(["make", *map(str, folders), "--size", "32", *more])


def middle(path: Path) -> tuple[np.ndarray, int, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert all(frame.shape == (32, 32, 3) for frame in frames)
        return frames[0].mean((0, 1)), len(frames), float(stream.average_rate or 0)


def test_pairs_are_squares_on_the_sides_that_the_key_says(folders: tuple[Path, Path, Path]) -> None:
    assert make(folders) == 0
    study = read_study(folders[2])
    assert sorted(pair.name for pair in study.pairs) == [f"clip {i}" for i in range(5)], "blue has one more"
    assert {pair.first for pair in study.pairs} == {"left", "right"}
    for number, pair in enumerate(study.pairs):
        for side in ("left", "right"):
            colour, frames, rate = middle(folders[2] / "page" / "videos" / f"{number:03d}_{side}.mp4")
            expected = RED if side == pair.first else BLUE
            assert np.abs(colour - expected).max() < 12 and (frames, rate) == (5, 8.0)


def test_the_page_does_not_say_whose_a_video_is_and_no_caption_breaks_it(
    folders: tuple[Path, Path, Path],
) -> None:
    make(folders)
    page = folders[2] / "page"
    text = (page / "index.html").read_text(encoding="utf-8")
    data = json.loads(
        re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[0]
    )
    study = read_study(folders[2])
    assert data["prompts"] == [pair.prompt for pair in study.pairs] and data["study"] == study.id
    assert "http" not in text, "nothing is fetched"
    for path in page.rglob("*"):
        if path.is_file():
            assert not re.search(rb"crimson|azure|clip \d", path.read_bytes()), path


def test_the_draw_is_fixed_and_a_study_is_not_replaced(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(folders, "--count", "3") == 0
    chosen = read_study(folders[2])
    video = folders[2] / "page" / "videos" / "000_left.mp4"
    before = video.stat().st_mtime_ns
    assert make(folders, "--count", "3") == 0
    assert read_study(folders[2]) == chosen and video.stat().st_mtime_ns == before
    assert make(folders, "--count", "4") == 2
    assert "holds another study" in capsys.readouterr().err
    assert make((*folders[:2], folders[2].with_name("other")), "--count", "3", "--seed", "1") == 0
    assert read_study(folders[2].with_name("other")).pairs != chosen.pairs


def answer(folders: tuple[Path, Path, Path], name: str, choose: Any) -> Path:
    """Write the answers of a person who gets the number of a pair, the question and the side of the red video."""
    study = read_study(folders[2])
    answers = [
        {key: choose(number, key, pair.first) for key in study.questions}
        for number, pair in enumerate(study.pairs)
    ]
    path = folders[2] / f"answers_{name}.json"
    path.write_text(json.dumps({"study": study.id, "name": name, "answers": answers}))
    return path


def other(side: str) -> str:
    return {"left": "right", "right": "left"}[side]


def test_shares_are_those_of_the_answers(folders: tuple[Path, Path, Path]) -> None:
    make(folders)
    always = answer(folders, "one", lambda number, key, red: red)
    mixed = answer(
        folders, "two", lambda number, key, red: {"motion": other(red), "text": "same"}.get(key, red)
    )
    rows = {
        cells[0]: cells[1:]
        for line in tally(folders[2], [always, mixed]).splitlines()
        if line.startswith("| ") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }
    assert rows["Motion quality"] == ["50%", "0%", "50%", "0.50 [0.00, 1.00]"], "two people who disagree"
    assert rows["Text alignment"][:3] == ["50%", "50%", "0%"] and rows["Text alignment"][3].startswith("0.75")
    assert rows["Visual quality"] == rows["Overall preference"] == ["100%", "0%", "0%", "1.00 [1.00, 1.00]"]


def test_the_interval_covers_what_chance_gives(folders: tuple[Path, Path, Path]) -> None:
    """Of 40 studies of coin tosses, about two lie outside their 95% interval."""
    make(folders)
    covered = 0
    for seed in range(40):
        coin = random.Random(seed)
        files = [
            answer(folders, f"{seed}_{i}", lambda *_, coin=coin: coin.choice(["left", "right"]))
            for i in range(6)
        ]
        line = tally(folders[2], files).splitlines()[-1]
        low, high = map(float, re.findall(r"\[(.*), (.*)\]", line)[0])
        covered += low <= 0.5 <= high
    assert covered >= 34


def test_without_a_caption_text_alignment_is_not_asked(tmp_path: Path) -> None:
    folders = (
        write_plain(tmp_path / "red", 2, RED, captions=False),
        write_plain(tmp_path / "blue", 2, BLUE, captions=False),
        tmp_path / "study",
    )
    make(folders)
    assert read_study(folders[2]).questions == ("motion", "visual", "overall")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: saved.update(study="x"), "holds no answers of this study"),
        (lambda saved: saved["answers"].pop(), "does not answer every question of all 5 pairs"),
        (lambda saved: saved["answers"][0].pop("motion"), "with one of left, right, same"),
        (lambda saved: saved["answers"][0].update(motion="both"), "with one of left, right, same"),
        (lambda saved: saved.update(answers={"0": 1}), "does not answer every question"),
        (lambda saved: saved["answers"].__setitem__(1, None), "does not answer every question"),
    ],
)
def test_answers_that_cannot_be_counted_are_refused(
    change: Any, words: str, folders: tuple[Path, Path, Path]
) -> None:
    make(folders)
    path = answer(folders, "one", lambda number, key, red: "same")
    saved = json.loads(path.read_text())
    change(saved)
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=words):
        tally(folders[2], [path])


@pytest.mark.parametrize("text", ["", "[", "[]", "null", "[" * 100_000, "\x00"])
def test_a_file_that_is_no_answer_is_one_sentence(
    text: str, folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make(folders)
    path = folders[2] / "answers.json"
    path.write_text(text)
    capsys.readouterr()
    assert command.main(["tally", str(folders[2]), str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (folders[2] / "key.json").write_text(text)
    assert command.main(["tally", str(folders[2]), str(path)]) == 2
    assert "is no key of a study" in capsys.readouterr().err


def test_one_file_counts_once(folders: tuple[Path, Path, Path]) -> None:
    make(folders)
    path = answer(folders, "one", lambda number, key, red: "same")
    with pytest.raises(ValueError, match="give each person's file once"):
        tally(folders[2], [path, path])
    twin = answer(folders, "two", lambda number, key, red: "same")
    assert "2 people" in tally(folders[2], [path, twin])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--count", "7"], "have 5 videos of one name; 7 were expected"),
        (["--count", "0"], "--count is 0"),
        (["--size", "33"], "--size is 33; expected an even number from 16"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    more: list[str], words: str, folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(folders, *more) == 2
    assert words in capsys.readouterr().err
    assert not folders[2].exists()


def test_a_broken_video_is_named(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[0] / "clip 0.mp4").write_bytes(b"no video")
    assert make(folders) == 2
    assert "clip 0.mp4" in capsys.readouterr().err
