"""The whole command on small real videos: the content of its sets, its report, and its errors for bad input."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from microcinema_core.data import prepare as command
from microcinema_core.data.shards import ShardDataset
from microcinema_core.data.videos import measure, sets
from microcinema_core.data.videos.decode import frames_at
from microcinema_core.data.videos.encode import Encoders
from microcinema_core.data.videos.plan import Geometry, parse_sizes
from microcinema_core.data.videos.report import read_report
from microcinema_core.data.videos.sources import scan
from microcinema_core.data.videos.stable_diffusion import load_encoder_networks
from tests.data.prepare_world import World, all_sets, copy_of
from tests.data.test_folder_lock import hold
from tests.data.video_world import drawing, write_video

for library in ("diffusers", "transformers", "skimage", "pyarrow", "matplotlib"):
    pytest.importorskip(library)


def test_sets_hold_what_the_videos_show(world: World, tmp_path: Path) -> None:
    world.run(tmp_path, "--rounds", "2")
    found = all_sets(tmp_path)
    assert set(found) == {"base/64x64", "base-test/64x64", "tsr/64x64", "tsr-test/64x64"}
    assert len(found["base/64x64"]) + len(found["base-test/64x64"]) == 4
    assert len(found["tsr/64x64"]) + len(found["tsr-test/64x64"]) == 8, "one window of each rate"
    encoders = Encoders(load_encoder_networks(world.checkpoint), world.tokenizer)
    videos = {video.id: video for video in scan(world.clips, missing_caption="empty")[0]}
    for name, data in found.items():
        frames = 3 if name.startswith("base") else 5
        assert data.index["frames"] == frames and data.index["latent"] == [4, 8, 8]
        assert data.index["fps"] == ([2.0] if frames == 3 else [8.0, 32.0])
        assert data.index["count"] == len(data) and data.index["text_width"] == 64
        torch.testing.assert_close(data.empty_text, encoders.contexts([""]), atol=5e-3, rtol=2e-3)
        rows = sets.read_set(tmp_path / name)
        assert len(rows) == len(data)
        row, item = rows[-1], data[len(data) - 1]
        assert {key: tuple(value.shape) for key, value in item.items()} == {
            "mean": (frames, 4, 8, 8),
            "std": (frames, 4, 8, 8),
            "text": (1, 77, 64),
            "fps": (),
            "group": (),
        }
        mean, std = encoders.latents(frames_at(videos[row["video"]], row["pts"], size=(64, 64)))
        torch.testing.assert_close(item["mean"], mean, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(item["std"], std, atol=2e-3, rtol=2e-3)
        context = encoders.contexts([f"caption {row['video'][0]}"])
        torch.testing.assert_close(item["text"], context, atol=5e-3, rtol=2e-3)
        assert float(item["fps"]) == row["fps"]


def test_the_report_names_every_file_that_gave_nothing(prepared: Path) -> None:
    reasons = {line.file: line.reason for line in read_report(prepared / "report.jsonl") if line.skipped}
    assert set(reasons) == {"bad.mp4", "zero.mp4", "tone.mp4", "tiny.mp4", "silent.mp4"}
    assert "cannot be decoded" in reasons["bad.mp4"] and "empty" in reasons["zero.mp4"]
    assert "no video stream" in reasons["tone.mp4"] and "no caption" in reasons["silent.mp4"]
    assert "enlarged 4.0 times to 64x64" in reasons["tiny.mp4"]


def test_sources_are_in_one_split_alone(prepared: Path) -> None:
    split: dict[str, set[bool]] = {}
    for name in sets.list_sets(prepared):
        for row in sets.read_set(prepared / name):
            split.setdefault(row["video"], set()).add("-test" in name)
    assert len(split) == 4 and all(len(sides) == 1 for sides in split.values())


def test_several_captions(world: World, tmp_path: Path) -> None:
    world.run(tmp_path, "--captions", "3", "--test", "0")
    [data] = all_sets(tmp_path).values()
    encoders = Encoders(load_encoder_networks(world.checkpoint), world.tokenizer)
    row, item = sets.read_set(tmp_path / "base/64x64")[0], data[0]
    first, second = f"caption {row['video'][0]}", f"another of {row['video'][0]}"
    torch.testing.assert_close(item["text"], encoders.contexts([first, second, first]), atol=5e-3, rtol=2e-3)


def test_buckets_by_aspect(world: World, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for name, size in (("wide", (96, 64)), ("square", (64, 64)), ("tall", (64, 128))):
        write_video(clips / f"{name}.mp4", size=size, fps=32, draw=lambda i, w, h: drawing(0, w, h))
        (clips / f"{name}.txt").write_text(name)
    other = dataclasses.replace(world, clips=clips)
    other.run(tmp_path / "out", "--sizes", "64x64,128x64,64x128", "--test", "0")
    assert {name: len(data) for name, data in all_sets(tmp_path / "out").items()} == {
        "base/128x64": 1,
        "base/64x128": 1,
        "base/64x64": 1,
    }
    assert ShardDataset(tmp_path / "out/base/64x128").index["latent"] == [4, 16, 8]


def test_sizes_and_geometry() -> None:
    assert parse_sizes("320x320,448x256") == ((320, 320), (448, 256))
    geometry = Geometry(parse_sizes("320x320,448x256,256x448"))
    assert [geometry.bucket(*size) for size in ((600, 480), (1920, 1080), (1080, 1920))] == [
        (320, 320),
        (448, 256),
        (256, 448),
    ]
    assert [(rate.role, rate.fps, rate.frames) for rate in geometry.rates] == [
        ("base", 2.0, 9),
        ("tsr", 8.0, 5),
        ("tsr", 32.0, 5),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the Stable Diffusion file with --checkpoint"),
        (["--only-scores", "--sizes", "300x300"], "size 300x300: both sides must be multiples of 64"),
        (["--only-scores", "--sizes", "320"], "sizes '320': expected WIDTHxHEIGHT"),
        (["--only-scores", "--keep", "motion"], "expected SCORE:LOW..HIGH"),
        (["--only-scores", "--score", "x=nowhere:f"], "score x: No module named 'nowhere'"),
        (["--only-scores", "--score", "x"], "expected NAME=MODULE:FUNCTION"),
        (["--only-scores", "--score", "x=y"], "expected NAME=MODULE:FUNCTION"),
        (["--only-scores", "--clip-model", "nowhere"], "--clip-model nowhere has no config.json"),
        (["--only-scores", "--test", "2"], "--test is 2.0; expected a fraction"),
        (["--only-scores", "--test", "nan"], "--test is nan; expected a fraction"),
        (["--only-scores", "--fps", "nan"], "fps is nan and rounds 2; expected more than 0"),
        (["--only-scores", "--fps", "inf"], "fps is inf and rounds 2; expected more than 0"),
        (["--only-scores", "--rounds", "999"], "rounds 999; expected"),
        (["--only-scores", "--enlarge", "-1"], "enlarge is -1.0; a number above 0 is needed"),
        (["--only-scores", "--enlarge", "nan"], "enlarge is nan; a number above 0 is needed"),
        (["--only-scores", "--gpus", "-1"], "--gpus is -1.0; expected a number from 0"),
        (["--only-scores", "--device", "x\ny"], r"--device x\ny cannot be used here"),
        (["--only-scores", "--device", "cuda:99"], "--device cuda:99 cannot be used here"),
        (
            ["--only-scores", "--score", "rate=math:sqrt"],
            "--score rate: there is a score or column of this name",
        ),
        (["--only-scores", "--score", "a=math:sqrt", "--score", "a=math:cos"], "--score a: there is a score"),
        (["--only-scores", "--table", "absent.csv"], "absent does not exist; give a folder"),
        (
            ["--only-scores", "--tokenizer", "nowhere"],
            "nowhere holds no tokenizer of CLIP; expected its vocab.json",
        ),
        (["--only-scores"], "absent does not exist; give a folder"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command.main([str(tmp_path / "absent"), str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") <= 2 and "Traceback" not in said


@pytest.mark.parametrize("library", ["skimage", "diffusers", "transformers"])
def test_a_library_that_is_not_there(
    world: World,
    library: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    world.run(tmp_path / "out", code=1, workers_of_its_own=True)
    assert f"{library} is not installed: pip install '.[train]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "it is found before a worker starts"
    if library == "skimage":
        assert measure.main([str(world.clips)]) == 1
        assert "skimage is not installed: pip install '.[train]'" in capsys.readouterr().err


def test_a_tokenizer_is_loaded_before_the_videos_are_scored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    (tmp_path / "odd").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "odd" / name).write_text("{}")
    checkpoint = ["--checkpoint", str(world.checkpoint)]
    for more, told in (
        (["--tokenizer", str(tmp_path / "odd")], "odd holds no tokenizer of CLIP"),
        ([], "found no comfy/sd1_tokenizer"),
    ):
        assert command.main([str(world.clips), str(tmp_path / "out"), *checkpoint, *more]) == 2
        assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_no_room(world: World, prepared: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    usage = shutil._ntuple_diskusage(10, 10, 1)  # type: ignore[attr-defined]
    monkeypatch.setattr(command.shutil, "disk_usage", lambda path: usage)
    world.run(tmp_path / "out", code=1)
    assert "No space left" in (said := capsys.readouterr().err) or "the latents need" in said
    assert "free some room and run the same command again" in said


def test_odd_files_cost_themselves_alone(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table with odd rows, names and captions: each is a line in the report, and the good videos become clips."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in "ab":
        shutil.copy(world.clips / f"{name}.mp4", clips)
    (clips / "two\nlines\u2028.mp4").write_bytes(b"no video")
    rows = [
        {"file_name": "a.mp4", "text": "good"},
        {"file_name": "b.mp4", "text": "good"},
        {"file_name": "two\nlines\u2028.mp4", "text": "x"},
        {"file_name": "n" * 300, "text": "x"},
        {"file_name": "\ud800.mp4", "text": "x"},
        {"file_name": "b.mp4", "text": "\udfff"},
        {"file_name": "b.mp4", "text": math.nan},
    ]
    lines = [json.dumps(row) for row in rows] + ["[" * 100_000]
    (clips / "metadata.jsonl").write_text("\n".join(lines))
    dataclasses.replace(world, clips=clips).run(tmp_path / "out", "--test", "0")
    [data] = all_sets(tmp_path / "out").values()
    assert len(data) == 2
    entries = read_report(tmp_path / "out" / "report.jsonl")
    files = {entry.file for entry in entries}
    assert files == {
        *("two\nlines\u2028.mp4", "n" * 300, "metadata.jsonl, line 5", "metadata.jsonl, line 6"),
        "metadata.jsonl, line 8",
    }
    assert json.loads(capsys.readouterr().out)["skipped"] == 5


def test_two_processes_do_not_prepare_into_one_folder(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = hold(tmp_path / "out")
    try:
        world.run(tmp_path / "out", code=2)
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{tmp_path / 'out'} is in use by process {other.pid} " in said
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"], "it wrote nothing"
    finally:
        other.kill()
        other.wait()


def test_what_a_machine_that_went_down_left_is_mended(world: World, prepared: Path, tmp_path: Path) -> None:
    """Half a file of each kind, and unfinished ones: all is made again, and the sets are as they were."""
    out = copy_of(prepared, tmp_path)
    before = {name: len(data) for name, data in all_sets(out).items()}
    [first, *_] = sorted(out.glob("base*/*/????????????????.safetensors"))
    first.write_bytes(first.read_bytes()[:200])
    [table, *_] = sorted(out.glob("scores/*/*.parquet"))
    table.write_bytes(b"")
    (out / "units.json").write_text("[[1], {")
    left = [out / ".units.json.7.unfinished", first.parent / ".tmpAb3dEf", out / "attempts" / ("0" * 16)]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    world.run(out)
    assert {name: len(data) for name, data in all_sets(out).items()} == before
    assert not any(path.exists() for path in left)


def test_latents_that_are_not_finite_are_not_stored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Encoders.latents
    calls: list[int] = []

    def overflows(self: Encoders, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = real(self, frames)
        calls.append(1)
        return (mean * math.inf if len(calls) == 1 else mean), std

    monkeypatch.setattr(Encoders, "latents", overflows)
    world.run(tmp_path, "--test", "0")
    [data] = all_sets(tmp_path).values()
    assert len(data) == 3 and all(bool(data[place]["mean"].isfinite().all()) for place in range(3))
    reasons = [entry.reason for entry in read_report(tmp_path / "report.jsonl") if not entry.skipped]
    assert reasons == [
        "scored, but not encoded: its latents are not finite; with --dtype fp32 or bf16 they may be"
    ]
