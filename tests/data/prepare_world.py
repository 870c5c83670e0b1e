"""Input for tests of `data.prepare`: small videos, good and bad, a checkpoint and a tokenizer."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from devtools.check.stable_diffusion import write_stable_diffusion
from microcinema_core.data import prepare as command
from microcinema_core.data.shards import ShardDataset
from microcinema_core.data.videos import run as workers
from microcinema_core.data.videos import sets
from microcinema_core.data.videos.attempt import Job, UnitResult, attempt
from microcinema_core.data.videos.plan import WorkUnit
from tests.data import video_world
from tests.data.video_world import drawing, write_video
from tests.mini.test_data_encode import write_tokenizer

NAMES = ("a", "b", "c", "d")


def in_this_process(
    job: Job, units: Sequence[WorkUnit], options: workers.WorkerOptions
) -> Iterator[UnitResult]:
    """Do the work of a worker here: faster, and tests can replace its parts."""
    process = job.start()
    yield from (attempt(job, process, unit) for unit in units)


@dataclasses.dataclass(frozen=True)
class World:
    """A folder of videos, a checkpoint and a tokenizer."""

    clips: Path
    checkpoint: Path
    tokenizer: Path

    def run(self, out: Path, *more: str, code: int = 0, workers_of_its_own: bool = False) -> None:
        """Run the command with small sizes and `more` options, and check its exit code."""
        arguments = [str(self.clips), str(out), "--checkpoint", str(self.checkpoint), "--sizes", "64x64"]
        arguments += ["--tokenizer", str(self.tokenizer), "--unit", "2", "--most", "1"]
        arguments += ["--frames", "3", "--rounds", "0", *more]
        if workers_of_its_own:
            assert command.main(arguments) == code
            return
        with patch.object(workers, "_in_processes", in_this_process):
            assert command.main(arguments) == code


def make_world(root: Path) -> World:
    """Write four good videos of different motion, and one of each bad kind."""
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
    checkpoint = write_stable_diffusion(root / "sd.safetensors", "sd2")
    return World(clips, checkpoint, write_tokenizer(root / "tokenizer"))


def all_sets(out: Path) -> dict[str, ShardDataset]:
    """Open the sets in `out` by name."""
    return {name: ShardDataset(out / name) for name in sets.list_sets(out)}


def copy_of(prepared: Path, tmp_path: Path) -> Path:
    """Copy the prepared sets for a test that changes them."""
    return Path(shutil.copytree(prepared, tmp_path / "out"))
