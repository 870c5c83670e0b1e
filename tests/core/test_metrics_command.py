"""`python -m microcinema_core.metrics`: on small real videos, with tiny networks in the published formats."""

from __future__ import annotations

import argparse
import json
import shutil
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torchmetrics.multimodal.clip_score import CLIPScore
from transformers import CLIPModel, CLIPTokenizer

from microcinema_core.config import END_TOKEN, START_TOKEN
from microcinema_core.data.shards import write_shard
from microcinema_core.data.videos.report import ReportEntry
from microcinema_core.data.videos.sources import scan
from microcinema_core.metrics import __main__ as command
from microcinema_core.metrics import feature_cache, figures, video_sets
from microcinema_core.metrics.clip_reading import Sampling, read_clip
from microcinema_core.metrics.distance import frechet_distance
from microcinema_core.metrics.evaluate import _count_notes
from microcinema_core.metrics.feature_cache import Measured
from microcinema_core.metrics.measures import ClipSimilarity, MotionMeasures
from microcinema_core.metrics.options import build_parser, parse_options
from microcinema_core.metrics.video_sets import read_set
from tests.core.metric_world import TinyC3D, TinyI3D, no_processes, write_script, write_set
from tests.data.test_videos_choose import clip_model
from tests.data.video_world import to_tar, truncate, write_audio
from tests.mini.test_data_encode import write_tokenizer

World = dict[str, Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("metrics")
    return {
        "real": write_set(root / "real", 6),
        "made": write_set(root / "made", 5, first_scene=40, step=3),
        "i3d": write_script(TinyI3D(), root / "i3d.pt"),
        "c3d": write_script(TinyC3D(), root / "c3d.pt"),
        "clip": clip_model(root / "clip"),
        "tokenizer": write_tokenizer(root / "tokenizer"),
        "root": root,
    }


def arguments(world: World, out: Path, *more: str, real: str = "real", made: str = "made") -> list[str]:
    paths = [str(world.get(real, Path(real))), str(world.get(made, Path(made)))]
    settings = ["--cache", str(out / "cache"), "--json", str(out / "r.json"), "--resamples", "20"]
    i3d = ["--i3d", str(world["i3d"])] if {"--fvd", "--kvd"} & {*more} else []
    return [*paths, *settings, *i3d, *more]


def run(world: World, out: Path, *more: str, code: int = 0, **sets: str) -> dict[str, Any]:
    """Run the command in this process, check its exit code, and return the JSON."""
    with no_processes():
        assert command.main(arguments(world, out, *more, **sets)) == code
    return json.loads((out / "r.json").read_text()) if code == 0 else {}


def figure(report: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [row for row in report["figures"] if row["name"].startswith(name)]
    return found


def values_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_every_metric_at_once(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = ["--clipsim", "--clip-model", str(world["clip"]), "--tokenizer", str(world["tokenizer"])]
    report = run(world, tmp_path, "--fvd", "--kvd", "--is", str(world["c3d"]), *clip, "--motion")
    names = ["FVD", "KVD", "IS", "CLIPSIM", "motion (sides/s)", "colour drift (dE)", "flicker (levels)"]
    assert [row["name"] for row in report["figures"]] == names
    for row in report["figures"]:
        assert row["low"] <= row["value"] <= row["high"] and (row["made"], row["real"]) == (5, 6)
    assert figure(report, "FVD")["value"] > figure(report, "FVD")["reference"], (
        "the halves of REAL are nearer"
    )
    assert figure(report, "motion")["value"] > figure(report, "motion")["reference"], "MADE moves faster"
    printed = capsys.readouterr().out
    assert "i3d.pt" in printed and "network resize" in printed and "c3d.pt" in printed
    assert "5 clips for 6 features: far too few, so FVD is far too high; rely on KVD" in printed
    assert (
        "MADE has 5 videos and REAL 6; FVD is biased by the count: --most 5 compares about equal" in printed
    )
    assert "come from few groups of related clips (5 groups for FVD, KVD, IS, CLIPSIM, motion" in printed
    assert "emoji" in printed and "say nothing beside published ones" in printed
    assert report["settings"]["frames"] == 16 and not any(report["left_out"].values())


def test_the_figures_are_those_of_the_frames(world: World, tmp_path: Path) -> None:
    report = run(world, tmp_path, "--fvd", "--is", str(world["c3d"]))
    features, classes = {}, {}
    for name in ("real", "made"):
        clips = [read_clip(video, Sampling(16)) for video in scan(world[name])[0]]
        videos = torch.stack([clip.frames for clip in clips]).transpose(1, 2)
        with torch.no_grad():
            features[name], classes[name] = TinyI3D()(videos.float()), TinyC3D()(videos)
    assert figure(report, "FVD")["value"] == pytest.approx(
        frechet_distance(features["real"], features["made"]), rel=1e-4
    )
    p = classes["made"].double().numpy()
    score = np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())
    assert figure(report, "IS")["value"] == pytest.approx(score, rel=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_values_of_one(world: World, tmp_path: Path) -> None:
    for number in (1, 2):
        out = tmp_path / str(number)
        assert command.main(arguments(world, out, "--fvd", "--motion", "--workers", str(number))) == 0
    one, two = values_of(tmp_path / "1" / "cache"), values_of(tmp_path / "2" / "cache")
    assert one == two and len(one) == 22
    reports = [json.loads((tmp_path / str(number) / "r.json").read_text()) for number in (1, 2)]
    assert reports[0] == reports[1]


def test_a_command_that_stopped_continues_and_other_metrics_reuse(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    original = read_clip

    def counted(video: Any, sampling: Sampling) -> Any:
        if len(measured) == 4 and stop:
            raise KeyboardInterrupt
        measured.append(video.path.as_posix())
        return original(video, sampling)

    monkeypatch.setattr(feature_cache, "read_clip", counted)
    stop = True
    run(world, tmp_path, "--fvd", code=130)
    assert len(values_of(tmp_path / "cache")) == 4
    stop = False
    first = run(world, tmp_path, "--fvd")
    assert len(measured) == len(set(measured)) == 11, "each video was read once"
    again = run(world, tmp_path, "--fvd", "--kvd")
    assert len(measured) == 11 and figure(again, "FVD") == figure(first, "FVD")
    (world["made"] / "00.txt").touch()  # neither captions nor their files change what I3D sees
    run(world, tmp_path, "--fvd", "--frames", "9")
    assert len(measured) == 22, "other frames are other values"


def test_a_damaged_value_is_removed_and_measured_again(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(world, tmp_path, "--motion")
    victim = next((tmp_path / "cache").rglob("*.safetensors"))
    truncate(victim, 0.5)
    run(world, tmp_path, "--motion", code=1)
    assert "damaged and is removed" in capsys.readouterr().err
    assert run(world, tmp_path, "--motion") == first


def test_files_that_cannot_be_used_are_listed(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_set(tmp_path / "odd", 3)
    (made / "broken.mp4").write_bytes(b"no video")
    write_audio(made / "sound.mp4")
    write_set(tmp_path / "odd" / "short", 1, frames=9)
    for _ in range(2):  # the second time from the cache
        report = run(world, tmp_path, "--motion", made=str(made))
        reasons = {entry["file"]: entry["reason"] for entry in report["left_out"]["MADE"]}
        assert set(reasons) == {"broken.mp4", "sound.mp4", "short/00.mp4"}
        assert "it has 9 frames and 16 are needed" in reasons["short/00.mp4"]
        assert figure(report, "motion")["made"] == 3
        assert "3 files of MADE were left out, the first broken.mp4: it " in capsys.readouterr().out


def test_clipsim_is_torchmetrics_over_all_frames_and_needs_captions(world: World, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("file_name,text\n" + "".join(f"{i:02d}.mp4,red scene {i}\n" for i in range(5)))
    options = ["--clip-model", str(world["clip"]), "--tokenizer", str(world["tokenizer"])]
    report = run(world, tmp_path, "--clipsim", str(table), *options)
    clips = {video.path.stem: read_clip(video, Sampling(20)).frames for video in scan(world["made"])[0]}
    metric = CLIPScore(model_name_or_path=lambda: (Features(world), Processor(world)))
    for number in range(5):
        metric.update(list(clips[f"{number:02d}"]), [f"red scene {number}"] * 20)
    assert figure(report, "CLIPSIM")["value"] == pytest.approx(float(metric.compute()) / 100, abs=2e-3)
    assert report["settings"]["clipsim_frames"] == "all" and report["settings"]["frames"] == 16
    fewer = run(world, tmp_path, "--clipsim", str(table), *options, "--frames", "4")
    assert fewer["settings"]["clipsim_frames"] == 4
    assert figure(fewer, "CLIPSIM")["value"] != figure(report, "CLIPSIM")["value"]


def test_clipsim_of_a_part_of_the_videos_is_refused_before_anything_is_measured(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CLIPSIM of some videos beside an FVD of all would pass for one of all: a forgotten line is mended first."""
    table, made = tmp_path / "t.csv", tmp_path / "silent"
    table.write_text("file_name,text\n00.mp4,a cat\n03.mp4,a dog\n99.mp4,another set's\n")
    options = ["--fvd", "--clip-model", str(world["clip"]), "--tokenizer", str(world["tokenizer"])]
    run(world, tmp_path, *options, "--clipsim", str(table), code=2)
    assert (
        f"3 of the 5 videos of MADE have no caption in {table}, the first 01.mp4" in capsys.readouterr().err
    )
    rows = [json.dumps({"file_name": f"{i:02d}.mp4", "text": "a"}) for i in range(5)]
    rows[1] = rows[1][:-2]
    table.with_suffix(".jsonl").write_text("\n".join(rows))
    run(world, tmp_path, *options, "--clipsim", str(table.with_suffix(".jsonl")), code=2)
    said = capsys.readouterr().err
    assert "1 of the 5 videos" in said and "the first 01.mp4 (t.jsonl, line 2: line 2 " in said
    write_set(made, 2, captions=False)
    run(world, tmp_path, *options, "--clipsim", made=str(made), code=2)
    assert "2 of the 2 videos of MADE have no caption, the first 00.mp4" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_table_of_captions_does_not_choose_videos(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.mp4").touch()
    table = tmp_path / "captions.csv"
    table.write_text("file_name,text\n1.mp4,a cat\n9.mp4,another set's\n")
    made = read_set("MADE", tmp_path, "caption", table=table)
    assert [video.captions for video in made.videos] == [(), ("a cat",), (), (), ()] and not made.entries
    assert made.keys[1] == "a cat"
    to_tar(tmp_path / "made.tar", {"1.mp4": b"", "2.mp4": b""})
    with pytest.raises(ValueError, match=r"captions.csv cannot caption videos inside of tar shards"):
        read_set("MADE", tmp_path / "made.tar", "group", table=table)


def test_what_cannot_be_computed_leaves_the_other_figures(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All clips of a folder are one key with --key folder, so there are no two keys for KVD to compare."""
    run(world, tmp_path, "--fvd", "--kvd", "--motion", "--key", "folder", code=1)
    report, printed = json.loads((tmp_path / "r.json").read_text()), capsys.readouterr().out
    assert figure(report, "FVD")["made"] == 5 and figure(report, "motion")["made"] == 5
    [problem] = report["not_computed"]
    assert (
        problem in printed
        and "KVD cannot be computed: all 6 clips of REAL are related by --key folder" in problem
    )
    run(world, tmp_path, "--kvd", "--key", "folder", code=2)
    assert "choose --key group or caption" in capsys.readouterr().err
    run(world, tmp_path, "--fvd", "--motion", "--fps", "100", code=2)
    told = capsys.readouterr().err
    assert "FVD cannot be computed: 0 videos" in told and "; motion cannot be computed: 0 videos" in told


def test_intervals_are_said_to_be_narrow_by_the_sets_that_they_come_from(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = write_set(tmp_path / "silent", 2, captions=False)
    clip = ["--clipsim", "--clip-model", str(world["clip"]), "--tokenizer", str(world["tokenizer"])]
    run(world, tmp_path, "--motion", *clip, "--frames", "4", real=str(silent))
    assert "(5 groups for CLIPSIM, motion (sides/s), " in capsys.readouterr().out, "those of MADE alone"


def test_equal_counts_are_advised_only_where_they_can_be_asked_for(world: World, tmp_path: Path) -> None:
    words = arguments(world, tmp_path, "--fvd")
    options = parse_options(build_parser("").parse_args(words))
    assert options.i3d is not None
    counts = {}
    for made in (1, 3, 6):
        pair = tuple(Measured(torch.zeros(n, 1), ["a"] * n, torch.ones(n)) for n in (6, made))
        counts[made] = _count_notes(options, {options.i3d.key: pair})
    assert counts[1] == counts[6] == [] and "--most 3 compares about equal counts" in counts[3][0]


def test_values_that_are_not_finite_are_refused_and_not_kept(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = lambda self: lambda clip: torch.tensor([1.0, torch.nan, 0.0])  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(MotionMeasures, "load", bad)
        run(world, tmp_path, "--motion", code=1)
    assert "gives 00.mp4 values that are not finite" in capsys.readouterr().err
    assert not values_of(tmp_path / "cache")
    first = run(world, tmp_path, "--motion")
    kept = next((tmp_path / "cache").rglob("*.safetensors"))
    write_shard(kept, {"value": torch.tensor([1.0, torch.inf, 0.0]), "fps": torch.tensor(8.0)})
    run(world, tmp_path, "--motion", code=1)
    assert "damaged and is removed" in capsys.readouterr().err
    assert run(world, tmp_path, "--motion") == first


def test_algebra_that_fails_leaves_the_other_figures(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise torch.linalg.LinAlgError("it did not converge")

    monkeypatch.setattr(figures, "fvd", fails)
    run(world, tmp_path, "--fvd", "--kvd", code=1)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["not_computed"] == ["FVD cannot be computed: it did not converge"]


def test_a_file_of_which_a_part_is_used_is_not_told_as_left_out(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_set(tmp_path / "odd", 3)
    (made / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{i:02d}.mp4", "text": "a"}) + "\n" for i in range(3))
    )
    entry = ReportEntry("00.mp4", "some of its captions: bad", skipped=False)
    original = video_sets.scan
    with patch.object(video_sets, "scan", lambda *a, **b: (original(*a, **b)[0], [entry])):
        report = run(world, tmp_path, "--motion", made=str(made))
    assert report["left_out"]["MADE"][0]["file"] == "00.mp4"
    assert "left out" not in capsys.readouterr().out


def test_another_tokenizer_is_another_measure(world: World, tmp_path: Path) -> None:
    """The named tokenizer is used even where the CLIP folder has its own, and its values are cached apart."""
    own = Path(shutil.copytree(world["clip"], tmp_path / "clip"))
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(world["tokenizer"] / name, own)
    other = write_tokenizer(tmp_path / "other", "a t</w>")

    def measure(*more: str) -> ClipSimilarity:
        words = ["REAL", "MADE", "--clipsim", "--clip-model", str(own), *more]
        found = parse_options(build_parser("").parse_args(words)).clipsim
        assert found is not None
        return found

    assert measure().tokenizer == own and measure("--tokenizer", str(other)).tokenizer == other
    assert measure().key != measure("--tokenizer", str(other)).key


def test_help_shows_every_default() -> None:
    for option in build_parser("")._actions:
        if option.default not in (None, False, argparse.SUPPRESS):
            assert "(default: %(default)s)" in (option.help or ""), option.dest


class Features(torch.nn.Module):
    """CLIP for torchmetrics, which expects tensors where transformers 5 returns outputs with their parts."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.model = CLIPModel.from_pretrained(world["clip"]).eval()
        self.config = self.model.config

    def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.visual_projection(self.model.vision_model(pixels).pooler_output)

    def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model.text_projection(self.model.text_model(ids, attention_mask=mask).pooler_output)


class Processor:
    """CLIP's pictures and tokens for torchmetrics, by transformers' own parts."""

    def __init__(self, world: World) -> None:
        from transformers import CLIPImageProcessor

        size = {"height": 32, "width": 32}
        self.images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
        self.tokenizer = CLIPTokenizer.from_pretrained(world["tokenizer"])

    def __call__(self, *, text: Any = None, images: Any = None, **_: Any) -> dict[str, torch.Tensor]:
        if images is not None:
            return {"pixel_values": self.images(images, return_tensors="pt")["pixel_values"]}
        rows = [[START_TOKEN, *self.tokenizer(one)["input_ids"][1:-1], END_TOKEN] for one in text]
        return {"input_ids": torch.tensor(rows), "attention_mask": torch.ones(len(rows), len(rows[0]))}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--fvd", "--frames", "8"], "I3D takes 9 or more"),
        (["--fvd", "--resamples", "1"], "--resamples is 1"),
        (["--fvd", "--most", "1"], "--most is 1"),
        (["--fvd", "--i3d", "/nowhere/i3d.pt"], "there is no such file"),
        (["--is", "README.md"], "--is README.md"),
        (["--clipsim"], "name a folder of transformers' CLIPModel with --clip-model"),
        (["--clipsim", "--clip-model", "docs"], "--clip-model docs has no config.json"),
        (["--clipsim", "--clip-model", "CLIP", "--tokenizer", "docs"], "docs holds no tokenizer of CLIP"),
        (["--fvd", "--i3d", "docs"], "--i3d docs: this is a folder"),
        (["--motion", "--json", "docs"], "--json docs is a folder; expected a file"),
        (["--motion", "--json", "README.md/r.json"], "--json: README.md is a file; expected a folder"),
        (["--motion", "--cache", "README.md"], "--cache: README.md is a file; expected a folder"),
        (["--motion", "--cache", "README.md/cache"], "--cache: README.md is a file; expected a folder"),
        (["--motion", "--fps", "100"], "0 videos of REAL can be used"),
        (["--is", "C3D", "--frames", "12"], "16 frames were expected"),
        (["--fvd", "--device", "moon"], "--device moon"),
        (["--fvd", "--seed", str(2**64 - 2)], f"--seed is {2**64 - 2}; expected a whole number from 0 to"),
        (["--fvd", "--seed=-1"], "--seed is -1; expected a whole number from 0 to"),
        (["--fvd", "--clip-model", "nowhere"], "--clip-model does nothing without --clipsim; add it"),
        (["--motion", "--tokenizer", "docs"], "--tokenizer does nothing without --clipsim; add it"),
        (["--motion", "--i3d", "nowhere"], "--i3d does nothing without a metric of I3D: add --fvd, --kvd or"),
        (["--motion", "--fetch-i3d"], "--fetch-i3d does nothing without a metric of I3D"),
        (["--is", "C3D", "--resize", "bilinear"], "--resize does nothing without a metric of I3D"),
        (["--fvd", "--fetch-i3d"], "--fetch-i3d does nothing with --i3d"),
        (["--fvd", "--is-splits", "2"], "--is-splits does nothing without --is; add it"),
    ],
)
def test_wrong_options_end_with_one_sentence(
    world: World, tmp_path: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [str(world[word.lower()]) if word in ("C3D", "CLIP") else word for word in more]
    run(world, tmp_path, *more, code=2)
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_a_missing_i3d_is_not_downloaded_unasked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    assert command.main([str(world["real"]), str(world["made"]), "--fvd"]) == 2
    assert "--fetch-i3d" in capsys.readouterr().err and not (tmp_path / "home").exists()


def test_unequal_rates_are_told(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = write_set(tmp_path / "fast", 3, fps=24, frames=60)
    run(world, tmp_path, "--motion", made=str(fast))
    assert "REAL was read at 8 fps and MADE at 24" in capsys.readouterr().out
    run(world, tmp_path, "--motion", "--fps", "8", made=str(fast))
    assert "was read at" not in capsys.readouterr().out


def test_a_tar_and_a_table_are_the_folder(world: World, tmp_path: Path) -> None:
    members = {path.name: path.read_bytes() for path in sorted(world["made"].iterdir())}
    to_tar(tmp_path / "made.tar", members)
    (tmp_path / "list.csv").write_text("file_name,text\n" + "".join(f"{i:02d}.mp4,\n" for i in range(5)))
    for name in members:
        (tmp_path / name).write_bytes(members[name])
    folder = run(world, tmp_path, "--motion")
    for made in ("made.tar", "list.csv"):
        assert run(world, tmp_path, "--motion", made=str(tmp_path / made))["figures"] == folder["figures"]


def test_at_most_so_many_videos_are_drawn_by_name(world: World, tmp_path: Path) -> None:
    some = run(world, tmp_path, "--motion", "--most", "3")
    assert all((row["made"], row["real"]) == (3, 3) for row in some["figures"])
    assert len(values_of(tmp_path / "cache")) == 6
    more = run(world, tmp_path, "--motion", "--most", "4")
    assert len(values_of(tmp_path / "cache")) == 8, "those of the smaller draw are among them"
    assert figure(more, "motion")["value"] != figure(some, "motion")["value"]


def test_intervals_resample_keys(world: World, tmp_path: Path) -> None:
    """Copies of one video in a folder are one key: the interval is as wide as without the copies."""
    for name in ("a", "b", "c"):
        for copy in range(3):
            write_set(tmp_path / "copies" / name / str(copy), 1, first_scene=ord(name), step=ord(name) - 96)
    by_key = {
        key: figure(run(world, tmp_path, "--motion", "--key", key, made=str(tmp_path / "copies")), "motion")
        for key in ("group", "caption")
    }
    width = {key: row["high"] - row["low"] for key, row in by_key.items()}
    assert width["caption"] > 1.3 * width["group"]


def test_memory_holds_one_clip_at_a_time(world: World, tmp_path: Path) -> None:
    alive: list[int] = []
    original = feature_cache.read_clip
    refs: list[weakref.ref[Any]] = []

    def tracked(video: Any, sampling: Sampling) -> Any:
        alive.append(sum(ref() is not None for ref in refs))
        clip = original(video, sampling)
        refs.append(weakref.ref(clip))
        return clip

    with patch.object(feature_cache, "read_clip", tracked):
        run(world, tmp_path, "--motion")
    assert len(alive) == 11 and max(alive) <= 1
