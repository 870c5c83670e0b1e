"""The whole command on small real videos, its cache, its filter, and what it says of bad input."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from microcinema_core.data import prepare as command
from microcinema_core.data.shards import ShardDataset
from microcinema_core.data.videos import jobs, run, sets
from microcinema_core.data.videos.decode import frames_at
from microcinema_core.data.videos.plan import Geometry, Unit, parse_sizes, share_of, split_bound, units_of
from microcinema_core.data.videos.report import read_lines
from microcinema_core.data.videos.score import Named, motion
from microcinema_core.data.videos.sources import Video, scan
from microcinema_core.data.videos.stable_diffusion import Encoders, load_networks
from microcinema_core.data.videos.table import limits_of, parse_keep, read_rows
from tests import video_world
from tests.test_data_encode import write_tokenizer
from tests.video_world import FlakyJob, drawing, write_video

for library in ("diffusers", "transformers", "skimage", "pyarrow", "matplotlib"):
    pytest.importorskip(library)

NAMES = ("a", "b", "c", "d")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclasses.dataclass(frozen=True)
class World:
    """Videos, a checkpoint, a tokenizer."""

    clips: Path
    checkpoint: Path
    tokenizer: Path

    def run(self, out: Path, *more: str, code: int = 0) -> None:
        arguments = [str(self.clips), str(out), "--checkpoint", str(self.checkpoint), "--sizes", "64x64"]
        arguments += ["--tokenizer", str(self.tokenizer), "--unit", "2", "--most", "1"]
        arguments += ["--frames", "3", "--rounds", "0", *more]
        assert command.main(arguments) == code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Four good videos of different motion, and one of each bad kind."""
    root = tmp_path_factory.mktemp("videos")
    clips = root / "clips"
    for number, name in enumerate(NAMES):
        draw = lambda i, w, h, step=number: drawing(i, w, h, scene=step, step=step)  # noqa: E731
        write_video(clips / f"{name}.mp4", frames=40, fps=32, draw=draw)
        (clips / f"{name}.txt").write_text(f"caption {name}\nanother of {name}")
    for name in ("bad", "zero", "tone", "tiny"):
        (clips / f"{name}.txt").write_text("x")
    (clips / "bad.mp4").write_bytes(b"no video")
    (clips / "zero.mp4").touch()
    video_world.write_audio(clips / "tone.mp4")
    write_video(clips / "tiny.mp4", size=(16, 16), frames=40, fps=32)
    write_video(clips / "silent.mp4")
    checkpoint = video_world.write_stable_diffusion(root / "sd.safetensors", "sd2")
    return World(clips, checkpoint, write_tokenizer(root / "tokenizer"))


@pytest.fixture(scope="module")
def prepared(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    world.run(out)
    return out


def copy_of(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "out"))


def all_sets(out: Path) -> dict[str, ShardDataset]:
    return {name: ShardDataset(out / name) for name in sets.held_sets(out)}


def by_video(out: Path) -> dict[str, str]:
    """Video -> set, of base clips."""
    return {
        row["video"]: name
        for name in sets.held_sets(out)
        if "base" in name
        for row in sets.clips_of(out / name)
    }


def test_sets_hold_what_the_videos_show(world: World, tmp_path: Path) -> None:
    world.run(tmp_path, "--rounds", "2")
    found = all_sets(tmp_path)
    assert set(found) == {"base/64x64", "base-test/64x64", "tsr/64x64", "tsr-test/64x64"}
    assert len(found["base/64x64"]) + len(found["base-test/64x64"]) == 4
    assert len(found["tsr/64x64"]) + len(found["tsr-test/64x64"]) == 8, "one window of each rate"
    encoders = Encoders(load_networks(world.checkpoint), world.tokenizer)
    videos = {video.id: video for video in scan(world.clips, missing_caption="empty")[0]}
    for name, data in found.items():
        frames = 3 if name.startswith("base") else 5
        assert data.index["frames"] == frames and data.index["latent"] == [4, 8, 8]
        assert data.index["fps"] == ([2.0] if frames == 3 else [8.0, 32.0])
        assert data.index["count"] == len(data) and data.index["text_width"] == 64
        torch.testing.assert_close(data.empty_text, encoders.contexts([""]), atol=5e-3, rtol=2e-3)
        rows = sets.clips_of(tmp_path / name)
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
    reasons = {line.file: line.reason for line in read_lines(prepared / "report.jsonl") if line.skipped}
    assert set(reasons) == {"bad.mp4", "zero.mp4", "tone.mp4", "tiny.mp4", "silent.mp4"}
    assert "cannot be decoded" in reasons["bad.mp4"] and "empty" in reasons["zero.mp4"]
    assert "no video stream" in reasons["tone.mp4"] and "no caption" in reasons["silent.mp4"]
    assert "enlarged 4.0 times to 64x64" in reasons["tiny.mp4"]


def test_sources_are_in_one_split_alone(prepared: Path) -> None:
    split: dict[str, set[bool]] = {}
    for name in sets.held_sets(prepared):
        for row in sets.clips_of(prepared / name):
            split.setdefault(row["video"], set()).add("-test" in name)
    assert len(split) == 4 and all(len(sides) == 1 for sides in split.values())


def test_nothing_is_done_twice(world: World, prepared: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = copy_of(prepared, tmp_path)
    before = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    monkeypatch.setattr(jobs, "survey", None)
    monkeypatch.setattr(jobs, "clip_latents", None)
    world.run(out)
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == before


def test_a_stopped_run_goes_on(world: World, prepared: Path, tmp_path: Path, monkeypatch: Any) -> None:
    real, calls = jobs.clip_latents, []

    def stops(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(jobs, "clip_latents", stops)
    world.run(tmp_path / "out", code=130)
    world.run(tmp_path / "out")
    assert len(calls) <= 4 + 2, "what was encoded before is kept"
    for name, data in all_sets(prepared).items():
        again = ShardDataset(tmp_path / "out" / name)
        assert len(again) == len(data)
        for place in range(len(data)):
            torch.testing.assert_close(again[place]["mean"], data[place]["mean"])


def test_thresholds_are_chosen_afterwards(
    world: World, prepared: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    out = copy_of(prepared, tmp_path)
    whole = {row["clip_id"] for name in sets.held_sets(out) for row in sets.clips_of(out / name)}
    monkeypatch.setattr(jobs, "survey", None)
    calls: list[Any] = []
    real = jobs.clip_latents

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(jobs, "clip_latents", counted)
    world.run(out, "--keep", "motion:0.2q..0.8q")
    rows = [row for name in sets.held_sets(out) for row in sets.clips_of(out / name)]
    assert 0 < len(rows) < len(whole) and not calls
    assert "a.mp4" not in {row["video"] for row in rows}, "its square stands still"
    world.run(out)
    assert {row["clip_id"] for name in sets.held_sets(out) for row in sets.clips_of(out / name)} == whole
    assert len(calls) == len(whole) - len(rows), "only what is new was encoded"


@pytest.mark.parametrize("change", ["checkpoint", "frames", "video"])
def test_any_change_encodes_again(world: World, prepared: Path, tmp_path: Path, change: str) -> None:
    out = copy_of(prepared, tmp_path)
    clips = Path(shutil.copytree(world.clips, tmp_path / "clips"))
    old = ShardDataset(out / "base/64x64").index["key"]
    other = dataclasses.replace(world, clips=clips)
    if change == "checkpoint":
        new = video_world.write_stable_diffusion(tmp_path / "other.safetensors", "sd2", seed=5)
        dataclasses.replace(other, checkpoint=new).run(out)
    elif change == "frames":
        other.run(out, "--frames", "2")
        assert ShardDataset(out / "base/64x64")[0]["mean"].shape[0] == 2
    else:
        (clips / "c.mp4").unlink()
        other.run(out)
        assert "c.mp4" not in by_video(out) and len(by_video(out)) == 3
    assert (ShardDataset(out / "base/64x64").index["key"] == old) == (change == "video")
    named = {
        (out / name / file).stem
        for name in sets.held_sets(out)
        for file in ShardDataset(out / name).index["files"]
    }
    assert {path.stem for path in out.rglob("*.safetensors")} - {"empty"} == named, "nothing stale is left"


def test_folder_and_file_of_one_checkpoint_are_the_same(world: World, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    for kind in ("sd1", "sd2"):
        path = video_world.write_stable_diffusion(tmp_path / f"{kind}.safetensors", kind)
        networks = load_networks(path)
        folder = tmp_path / kind
        whole = AutoencoderKL.from_config(networks.vae.config)  # type: ignore[union-attr]
        whole.load_state_dict(networks.vae.state_dict(), strict=False)
        whole.save_pretrained(folder / "vae")
        networks.text.save_pretrained(folder / "text_encoder")  # type: ignore[operator]
        again = load_networks(folder)
        assert again.digest() == networks.digest() and again.padding == networks.padding
        assert networks.padding == (49407 if kind == "sd1" else 0)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"model.diffusion_model.x": torch.zeros(1)}, r"holds no VAE .* and no text encoder"),
        ({"lora_unet.up": torch.zeros(1)}, "this is a LoRA; a whole Stable Diffusion"),
    ],
)
def test_another_kind_of_checkpoint(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    from safetensors.torch import save_file

    save_file(tensors, str(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match=message):
        load_networks(tmp_path / "x.safetensors")
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x02pickle---")
    with pytest.raises(ValueError, match="PyTorch pickle"):
        load_networks(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="no such file"):
        load_networks(tmp_path / "absent.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"no vae/config\.json"):
        load_networks(tmp_path / "folder")


def test_several_captions(world: World, tmp_path: Path) -> None:
    world.run(tmp_path, "--captions", "3", "--test", "0")
    [data] = all_sets(tmp_path).values()
    encoders = Encoders(load_networks(world.checkpoint), world.tokenizer)
    row, item = sets.clips_of(tmp_path / "base/64x64")[0], data[0]
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


def clip_model(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**shape, "image_size": 32, "patch_size": 16}
    text = {**shape, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    return folder


def brightness(frames: Tensor, captions: list[str]) -> float:
    """A user's own score."""
    assert frames.dtype == torch.uint8 and captions
    return float(frames.float().mean())


def test_scores(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = clip_model(tmp_path / "clip")
    hook = (
        f"bright={__name__}:brightness" if "." in __name__ else "bright=tests.test_videos_prepare:brightness"
    )
    arguments = ["--clip-model", str(model), "--score", hook, "--only-scores"]
    world.run(tmp_path / "out", *arguments)
    summary = json.loads(capsys.readouterr().out)
    assert summary["scores"] == ["motion", "clip", "bright"] and summary["clips"] == 4
    assert [Path(path).name for path in summary["histograms"]] == ["motion.png", "clip.png", "bright.png"]
    rows = [row for path in sorted((tmp_path / "out").rglob("*.parquet")) for row in read_rows(path)]
    assert len(rows) == 4 and all(-1 <= row["score_clip"] <= 1 and row["score_bright"] > 30 for row in rows)
    motions = {row["video"]: row["score_motion"] for row in rows}
    assert motions["a.mp4"] < min(value for name, value in motions.items() if name != "a.mp4")


def test_motion_is_in_sides_a_second() -> None:
    rng = np.random.default_rng(0)
    ground = torch.from_numpy(np.kron(rng.integers(0, 255, (30, 30)), np.ones((8, 8))).astype(np.uint8))
    wide = torch.nn.functional.avg_pool2d(ground[None, None].float(), 9, 1, 4)[0].to(torch.uint8)
    frames = torch.stack([wide[:, 20:148, 4 * n : 4 * n + 128] for n in range(5)]).repeat(1, 3, 1, 1)
    assert motion(frames, 8.0) == pytest.approx(8 * 4 / 128, rel=0.15)
    assert motion(frames[:1].repeat(5, 1, 1, 1), 8.0) == pytest.approx(0, abs=1e-6)


def test_keep_by_value_and_quantile() -> None:
    columns = {
        "role": np.array(["base"] * 5 + ["tsr"] * 2),
        "rate": np.array([2.0] * 5 + [8.0] * 2),
        "motion": np.array([0.0, 1, 2, 3, np.nan, 10, 20]),
    }
    limits = limits_of(columns, parse_keep("motion:0.5q..2.5"))
    assert limits == {("base", 2.0): {"motion": (1.5, 2.5)}, ("tsr", 8.0): {"motion": (15.0, 2.5)}}
    with pytest.raises(ValueError, match="keep names 'clip'; the scores are: motion"):
        limits_of(columns, parse_keep("clip:0.2.."))
    for text in ("motion", "motion:..", "motion:a..b", "motion:0.2"):
        with pytest.raises(ValueError, match=r"expected SCORE:LOW\.\.HIGH"):
            parse_keep(text)
    with pytest.raises(ValueError, match="a quantile is from 0 to 1"):
        parse_keep("motion:7q..")


def video(name: str) -> Video:
    return Video(name, Path(name), ("x",), name, "1")


def test_units_stay_as_they_are() -> None:
    videos = [video(letter) for letter in "bcdefg"]
    first = units_of(videos, [], 2)
    held = [[video.key for video in unit.videos] for unit in first]
    names = {unit.name for unit in first}
    assert {unit.name for unit in units_of([*videos, video("a")], held, 2)} > names
    fewer = units_of([one for one in videos if one.id != "d"], held, 2)
    assert len({unit.name for unit in fewer} & names) == 2
    assert sorted(one.id for unit in fewer for one in unit.videos) == ["b", "c", "e", "f", "g"]
    assert Unit.from_json(first[0].to_json()) == first[0]


def test_a_part_of_the_sources_is_for_testing() -> None:
    many = [video(str(number)) for number in range(2000)]
    bound = split_bound(many, 0.1)
    assert bound == 0.1 and 140 < sum(share_of(one.group) < bound for one in many) < 260
    few = [video(letter) for letter in LETTERS[:4]]
    assert sum(share_of(one.group) < split_bound(few, 1e-6) for one in few) == 1
    assert split_bound(few[:1], 0.1) == 0.0 == split_bound(few, 0.0)


UNITS = [Unit((video(letter),)) for letter in "abcd"]


def test_what_fails_is_tried_again(tmp_path: Path) -> None:
    results = run.run(FlakyJob(tmp_path, fails=2), UNITS, run.Workers())
    assert [result.error for result in results] == [""] * 4
    assert not run.run(FlakyJob(tmp_path), UNITS, run.Workers())


def test_what_fails_always_is_left_out(tmp_path: Path) -> None:
    results = run.run(FlakyJob(tmp_path, fails=9), UNITS, run.Workers())
    assert ["of this test" in result.error for result in results] == [False, True, False, False]
    assert len(run.run(FlakyJob(tmp_path), UNITS, run.Workers())) == 1, "the next run tries it again"


def test_a_full_disk_ends_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of this test"):
        run.run(FlakyJob(tmp_path, fails=1, number=errno.ENOSPC), UNITS, run.Workers())
    assert len(run.run(FlakyJob(tmp_path, fails=1), UNITS, run.Workers())) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("fails", "left"), [(1, 0), (9, 1)])
def test_a_worker_that_dies_is_replaced(
    tmp_path: Path, fails: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The host has a package `tests` too; a new process, which finds this one by its path, must not take that.
    ours = [path for path in sys.path if not (Path(path) / "tests" / "__init__.py").exists()]
    monkeypatch.setattr(sys, "path", ours)
    results = run.run(FlakyJob(tmp_path, fails=fails, dies=True), UNITS, run.Workers(2))
    assert sorted(result.unit for result in results) == sorted(unit.name for unit in UNITS)
    assert sum("ended the process 3 times" in result.error for result in results) == left


@pytest.mark.slow
def test_two_processes_and_ray_give_the_same(world: World, prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    world.run(tmp_path / "two", "--workers", "2")
    world.run(tmp_path / "ray", "--ray", "--workers", "1")
    for name, data in all_sets(prepared).items():
        for other in (tmp_path / "two", tmp_path / "ray"):
            again = ShardDataset(other / name)
            assert again.index["files"] == data.index["files"] and len(again) == len(data)
            torch.testing.assert_close(again[0]["mean"], data[0]["mean"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the Stable Diffusion file with --checkpoint"),
        (["--only-scores", "--sizes", "300x300"], "size 300x300: both sides must be multiples of 64"),
        (["--only-scores", "--sizes", "320"], "sizes '320': expected WIDTHxHEIGHT"),
        (["--only-scores", "--keep", "motion"], "expected SCORE:LOW..HIGH"),
        (["--only-scores", "--score", "x=nowhere:f"], "score x: No module named 'nowhere'"),
        (["--only-scores", "--score", "x"], "expected NAME=MODULE:FUNCTION"),
        (["--only-scores", "--clip-model", "nowhere"], "--clip-model nowhere has no config.json"),
        (["--only-scores", "--test", "2"], "--test is 2.0; expected a part"),
        (["--only-scores", "--tokenizer", "nowhere"], "holds no vocab.json"),
        (["--only-scores"], "absent does not exist; give a folder"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command.main([str(tmp_path / "absent"), str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") <= 2 and "Traceback" not in said


def test_no_room(world: World, prepared: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    usage = shutil._ntuple_diskusage(10, 10, 1)  # type: ignore[attr-defined]
    monkeypatch.setattr(command.shutil, "disk_usage", lambda path: usage)
    world.run(tmp_path / "out", code=1)
    assert "No space left" in (said := capsys.readouterr().err) or "the latents need" in said
    assert "free some room and run the same command again" in said


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
    with pytest.raises(ValueError, match="expected NAME=MODULE:FUNCTION"):
        Named.parse("a=b")
