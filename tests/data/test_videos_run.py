"""Units of work in processes and on Ray: failures are retried, and nothing is counted twice."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from microcinema_core.data.videos import run
from microcinema_core.data.videos.attempt import ProcessUnit
from microcinema_core.data.videos.plan import WorkUnit, make_units, split_bound, split_position
from microcinema_core.data.videos.sources import Video
from tests.data.prepare_world import in_this_process
from tests.data.video_world import FlakyJob, NoStart

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


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the work in this process, which is faster."""
    monkeypatch.setattr(run, "_in_processes", in_this_process)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let new processes find this package `tests`, and not ComfyUI's."""
    paths = [path for path in sys.path if not (Path(path) / "tests" / "__init__.py").exists()]
    monkeypatch.setattr(sys, "path", paths)


@pytest.mark.usefixtures("here")
def test_what_fails_is_tried_again(tmp_path: Path) -> None:
    results = run.run(FlakyJob(tmp_path, fails=2), UNITS, run.WorkerOptions())
    assert [result.error for result in results] == [""] * 4
    assert not run.run(FlakyJob(tmp_path), UNITS, run.WorkerOptions())


@pytest.mark.usefixtures("here")
def test_what_fails_always_is_left_out(tmp_path: Path) -> None:
    results = run.run(FlakyJob(tmp_path, fails=9), UNITS, run.WorkerOptions())
    assert ["of this test" in result.error for result in results] == [False, True, False, False]
    assert len(run.run(FlakyJob(tmp_path), UNITS, run.WorkerOptions())) == 1, "the next run retries it"


@pytest.mark.usefixtures("ours")
def test_a_full_disk_ends_it(tmp_path: Path) -> None:
    """Also where the worker, in a process of its own, finds it."""
    with pytest.raises(OSError, match="of this test"):
        run.run(FlakyJob(tmp_path, fails=1, number=errno.ENOSPC), UNITS, run.WorkerOptions())
    left = [unit for unit in UNITS if not FlakyJob(tmp_path).done(unit)]
    assert len(left) == 3


class Killed(BaseException):
    """The end of the whole process, as far as this test can end it."""


@pytest.mark.usefixtures("here")
def test_kills_from_outside_are_not_the_units_fault(tmp_path: Path) -> None:
    """A machine that went down during a unit, however often, says nothing about the unit."""

    @dataclasses.dataclass(frozen=True)
    class Interrupted(FlakyJob):
        def start(self) -> ProcessUnit:
            def process(unit: WorkUnit) -> None:
                raise Killed

            return process

    for _ in range(4):
        with pytest.raises(Killed):
            run.run(Interrupted(tmp_path), UNITS, run.WorkerOptions())
    results = run.run(FlakyJob(tmp_path), UNITS, run.WorkerOptions())
    assert [result.error for result in results] == [""] * 4


@pytest.mark.usefixtures("ours")
def test_one_worker_too_is_a_process_of_its_own(tmp_path: Path) -> None:
    """A unit that ends it once is tried again, and this process goes on."""
    results = run.run(FlakyJob(tmp_path, fails=1, dies=True), UNITS[:2], run.WorkerOptions(1))
    assert sorted(result.unit for result in results) == sorted(unit.name for unit in UNITS[:2])
    assert not any(result.error for result in results)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    ("error", "kind"), [pytest.param("value", ValueError, marks=pytest.mark.slow), ("file", OSError)]
)
def test_a_job_that_cannot_start_is_told_here(tmp_path: Path, error: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"of this\\ntest"):
        run.run(NoStart(tmp_path, error=error), UNITS, run.WorkerOptions())


@pytest.mark.slow
@pytest.mark.usefixtures("ours")
def test_workers_that_end_as_they_start_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="4 workers in a row ended as they started, the last with exit code 3"):
        run.run(NoStart(tmp_path, error="ends"), UNITS, run.WorkerOptions())


COMMAND = """
import sys
from pathlib import Path
from microcinema_core.data.videos import run
from microcinema_core.data.videos.plan import WorkUnit
from microcinema_core.data.videos.sources import Video
from tests.data.video_world import Slow
unit = WorkUnit((Video("a", Path("a"), ("x",), "a", "1"),))
run.run(Slow(Path(sys.argv[1])), [unit], run.WorkerOptions(1))
"""


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return (
        not Path(f"/proc/{process}/stat").exists() or ") Z " not in Path(f"/proc/{process}/stat").read_text()
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_killed_three_times_loses_no_unit_and_no_worker(
    tmp_path: Path, number: signal.Signals
) -> None:
    root = Path(__file__).resolve().parents[2]
    inside = tmp_path / "inside"
    for _ in range(3):
        inside.unlink(missing_ok=True)
        command = [sys.executable, "-c", COMMAND, str(tmp_path)]
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL
        )
        wait_for(lambda: inside.exists() and inside.read_text() != "")
        worker = int(inside.read_text())
        assert worker != process.pid
        process.send_signal(number)
        process.wait()
        wait_for(lambda worker=worker: not is_alive(worker))  # type: ignore[misc]
    results = list(in_this_process(FlakyJob(tmp_path), UNITS, run.WorkerOptions()))
    assert [result.error for result in results] == [""] * 4


@pytest.mark.slow
@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(("fails", "left", "ray"), [(1, 0, None), (9, 1, None), (1, 0, "")])
def test_a_worker_that_dies_is_replaced(tmp_path: Path, fails: int, left: int, ray: str | None) -> None:
    if ray is not None:
        pytest.importorskip("ray")
    results = run.run(FlakyJob(tmp_path, fails=fails, dies=True), UNITS, run.WorkerOptions(2, ray))
    assert sorted(result.unit for result in results) == sorted(unit.name for unit in UNITS)
    assert sum("ended the process 3 times" in result.error for result in results) == left
