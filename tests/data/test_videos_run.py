"""Units of work in processes and on Ray: failures are retried, and nothing is counted twice."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from microcinema_core.data.videos import run
from microcinema_core.data.videos.plan import WorkUnit, make_units, split_bound, split_position
from microcinema_core.data.videos.sources import Video
from tests.data.video_world import FlakyJob

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def video(name: str) -> Video:
    return Video(name, Path(name), ("x",), name, "1")


UNITS = [WorkUnit((video(letter),)) for letter in "abcd"]


def test_units_stay_as_they_are() -> None:
    videos = [video(letter) for letter in "bcdefg"]
    first = make_units(videos, [], 2)
    held = [[video.key for video in unit.videos] for unit in first]
    names = {unit.name for unit in first}
    assert {unit.name for unit in make_units([*videos, video("a")], held, 2)} > names
    fewer = make_units([one for one in videos if one.id != "d"], held, 2)
    assert len({unit.name for unit in fewer} & names) == 2
    assert sorted(one.id for unit in fewer for one in unit.videos) == ["b", "c", "e", "f", "g"]
    assert WorkUnit.from_json(first[0].to_json()) == first[0]


def test_a_part_of_the_sources_is_for_testing() -> None:
    many = [video(str(number)) for number in range(2000)]
    bound = split_bound(many, 0.1)
    assert bound == 0.1 and 140 < sum(split_position(one.group) < bound for one in many) < 260
    few = [video(letter) for letter in LETTERS[:4]]
    assert sum(split_position(one.group) < split_bound(few, 1e-6) for one in few) == 1
    assert split_bound(few[:1], 0.1) == 0.0 == split_bound(few, 0.0)


def test_what_fails_is_tried_again(tmp_path: Path) -> None:
    results = run.run(FlakyJob(tmp_path, fails=2), UNITS, run.WorkerOptions())
    assert [result.error for result in results] == [""] * 4
    assert not run.run(FlakyJob(tmp_path), UNITS, run.WorkerOptions())


def test_what_fails_always_is_left_out(tmp_path: Path) -> None:
    results = run.run(FlakyJob(tmp_path, fails=9), UNITS, run.WorkerOptions())
    assert ["of this test" in result.error for result in results] == [False, True, False, False]
    assert len(run.run(FlakyJob(tmp_path), UNITS, run.WorkerOptions())) == 1, "the next run retries it"


def test_a_full_disk_ends_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of this test"):
        run.run(FlakyJob(tmp_path, fails=1, number=errno.ENOSPC), UNITS, run.WorkerOptions())
    assert len(run.run(FlakyJob(tmp_path, fails=1), UNITS, run.WorkerOptions())) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("fails", "left", "ray"), [(1, 0, None), (9, 1, None), (1, 0, "")])
def test_a_worker_that_dies_is_replaced(
    tmp_path: Path, fails: int, left: int, ray: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ray is not None:
        pytest.importorskip("ray")
    # ComfyUI has a package `tests` too; a new process, which finds this one by its path, must not import that.
    ours = [path for path in sys.path if not (Path(path) / "tests" / "__init__.py").exists()]
    monkeypatch.setattr(sys, "path", ours)
    results = run.run(FlakyJob(tmp_path, fails=fails, dies=True), UNITS, run.WorkerOptions(2, ray))
    assert sorted(result.unit for result in results) == sorted(unit.name for unit in UNITS)
    assert sum("ended the process 3 times" in result.error for result in results) == left
