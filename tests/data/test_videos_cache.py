"""Results are cached: a stopped run continues, and only what has changed is done again."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from devtools.check.stable_diffusion import write_stable_diffusion
from microcinema_core.data.shards import ShardDataset
from microcinema_core.data.videos import encode, score_job, sets
from tests.data.prepare_world import World, all_sets, copy_of

for library in ("diffusers", "transformers", "skimage", "pyarrow", "matplotlib"):
    pytest.importorskip(library)


def by_video(out: Path) -> dict[str, str]:
    """Return the set of each video's base clips."""
    return {
        row["video"]: name
        for name in sets.list_sets(out)
        if "base" in name
        for row in sets.read_set(out / name)
    }


def test_nothing_is_done_twice(world: World, prepared: Path, tmp_path: Path, monkeypatch: Any) -> None:
    out = copy_of(prepared, tmp_path)
    before = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    monkeypatch.setattr(score_job, "survey", None)
    monkeypatch.setattr(encode, "encode_clip", None)
    world.run(out)
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == before


def test_a_stopped_run_goes_on(world: World, prepared: Path, tmp_path: Path, monkeypatch: Any) -> None:
    real, calls = encode.encode_clip, []

    def stops(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(encode, "encode_clip", stops)
    world.run(tmp_path / "out", code=130)
    world.run(tmp_path / "out")
    assert len(calls) <= 4 + 2, "what was encoded before is kept"
    for name, data in all_sets(prepared).items():
        again = ShardDataset(tmp_path / "out" / name)
        assert len(again) == len(data)
        for place in range(len(data)):
            torch.testing.assert_close(again[place]["mean"], data[place]["mean"])


@pytest.mark.parametrize("change", ["checkpoint", "frames", "fps", "sizes", "captions", "video"])
def test_any_change_encodes_again(world: World, prepared: Path, tmp_path: Path, change: str) -> None:
    out = copy_of(prepared, tmp_path)
    clips = Path(shutil.copytree(world.clips, tmp_path / "clips"))
    old = ShardDataset(out / "base/64x64").index["key"]
    other = dataclasses.replace(world, clips=clips)
    if change == "checkpoint":
        new = write_stable_diffusion(tmp_path / "other.safetensors", "sd2", seed=5)
        dataclasses.replace(other, checkpoint=new).run(out)
    elif change == "frames":
        other.run(out, "--frames", "2")
        assert ShardDataset(out / "base/64x64")[0]["mean"].shape[0] == 2
    elif change == "fps":
        other.run(out, "--fps", "4")
        assert ShardDataset(out / "base/64x64")[0]["fps"] == 4
    elif change == "sizes":
        other.run(out, "--sizes", "64x64,128x64")
    elif change == "captions":
        other.run(out, "--captions", "2")
        assert ShardDataset(out / "base/64x64")[0]["text"].shape[0] == 2
    else:
        (clips / "c.mp4").unlink()
        other.run(out)
        assert "c.mp4" not in by_video(out) and len(by_video(out)) == 3
    assert (ShardDataset(out / "base/64x64").index["key"] == old) == (change == "video")
    named = {
        (out / name / file).stem
        for name in sets.list_sets(out)
        for file in ShardDataset(out / name).index["files"]
    }
    assert {path.stem for path in out.rglob("*.safetensors")} - {"empty"} == named, "nothing stale is left"


def test_what_others_keep_in_the_folder_stays(world: World, prepared: Path, tmp_path: Path) -> None:
    out = copy_of(prepared, tmp_path)
    theirs = out / "mine" / "64x64"
    shutil.copytree(out / "base" / "64x64", theirs)
    before = {path: path.read_bytes() for path in theirs.iterdir()}
    world.run(out)
    assert {path: path.read_bytes() for path in theirs.iterdir()} == before


@pytest.mark.slow
def test_two_processes_and_ray_give_the_same(world: World, prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    world.run(tmp_path / "two", "--workers", "2", workers_of_its_own=True)
    world.run(tmp_path / "ray", "--ray", "--workers", "1")
    for name, data in all_sets(prepared).items():
        for other in (tmp_path / "two", tmp_path / "ray"):
            again = ShardDataset(other / name)
            assert again.index["files"] == data.index["files"] and len(again) == len(data)
            torch.testing.assert_close(again[0]["mean"], data[0]["mean"])
