"""Measure many videos: in worker processes, each video once, with every value on disk as soon as it is there.

A value is a file of its own, under a hash of measure, sampling and video, that appears atomically. Repeat the command
to continue; another metric reads what is there. Any number of processes give the same values bit for bit: each video is
measured alone, by one thread.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..data.shards import write_shard
from ..data.videos.attempt import ProcessUnit
from ..data.videos.plan import WorkUnit, content_key
from ..data.videos.report import ReportEntry, Unusable, read_report, write_report
from ..data.videos.run import WorkerOptions, process_units
from ..data.videos.sources import Video
from ..files.safetensors_io import read_tensors
from ..messages import one_line, reason
from .clip_reading import Clip, Sampling, read_clip
from .measures import Measure, MeasureClip

logger = logging.getLogger(__name__)

UNIT = 8
"""Videos that a worker takes at a time."""
DECODER_ERRORS = (RuntimeError, ArithmeticError, LookupError, AssertionError)
"""What libraries raise on damaged or unusual files."""


@dataclass(frozen=True)
class FeatureJob:
    """Measure videos that are not measured yet.

    Attributes:
        out: folder of the cache.
        sampling: the frames to read.
        measures: what to measure.
    """

    out: Path
    sampling: Sampling
    measures: tuple[Measure, ...]

    def path(self, measure: Measure, video: Video) -> Path:
        """Return the path of a video's values; `.jsonl` in place of its suffix says why there are none."""
        captions = video.captions if measure.reads_captions else ()
        text = "\0".join((video.id, video.stamp, *captions))
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        folder = f"{measure.key}-{content_key(asdict(self.sampling))}"
        return self.out / folder / name[:2] / f"{name}.safetensors"

    def has(self, measure: Measure, video: Video) -> bool:
        """Return whether a video is measured, known to be unusable, or without the caption that the measure reads."""
        if measure.reads_captions and not video.captions:
            return True
        path = self.path(measure, video)
        return path.exists() or path.with_suffix(".jsonl").exists()

    def done(self, unit: WorkUnit) -> bool:
        """Return whether all videos of a unit are measured."""
        return all(self.has(measure, video) for measure in self.measures for video in unit.videos)

    def start(self) -> ProcessUnit:
        """Load the networks, and return the function that measures the videos of a unit."""
        torch.set_num_threads(1)  # sums round alike in any number of processes
        loaded = [(measure, measure.load()) for measure in self.measures]
        blank = Clip(torch.zeros(self.sampling.frames or 16, 3, 64, 64, dtype=torch.uint8), 8.0, ("",))
        for _, function in loaded:
            function(blank)  # a network that does not take such clips ends the command before the first video

        def process(unit: WorkUnit) -> None:
            for video in unit.videos:
                self._measure(video, [pair for pair in loaded if not self.has(pair[0], video)])

        return process

    def _measure(self, video: Video, loaded: Sequence[tuple[Measure, MeasureClip]]) -> None:
        if not loaded:
            return
        try:
            clip = read_clip(video, self.sampling)
        except (Unusable, *DECODER_ERRORS) as error:
            for measure, _ in loaded:
                self._skip(measure, video, error)
            return
        for measure, function in loaded:
            value = function(clip)
            if not value.isfinite().all():
                raise ValueError(
                    f"{measure.label} gives {one_line(video.id)} values that are not finite; expected numbers: name "
                    "another file of the network, or remove that video"
                )
            write_shard(self.path(measure, video), {"value": value, "fps": torch.tensor(clip.fps)})

    def _skip(self, measure: Measure, video: Video, error: Exception) -> None:
        path = self.path(measure, video).with_suffix(".jsonl")
        write_report(path, [ReportEntry(video.id, reason(error))])


@dataclass
class Measured:
    """The values of one measure, of all videos that gave some.

    Attributes:
        values: float32 `n d`, in the order of the videos.
        keys: the group of each clip, for intervals.
        fps: the true rate of each clip, (n,).
        skipped: why the other videos gave nothing.
    """

    values: Tensor
    keys: list[str]
    fps: Tensor
    skipped: list[ReportEntry] = field(default_factory=list)


def measure_all(job: FeatureJob, videos: Sequence[Video], workers: WorkerOptions, title: str) -> None:
    """Measure all videos that are not measured yet, with a progress bar where stderr is a terminal.

    Raises:
        ValueError: a network cannot be loaded, or does not take these clips.
        OSError: the disk is full or read-only, or a unit failed; what is measured stays.
    """
    from tqdm import tqdm

    pending = [video for video in videos if not job.done(WorkUnit((video,)))]
    units = [WorkUnit(tuple(pending[start : start + UNIT])) for start in range(0, len(pending), UNIT)]
    size = {unit.name: len(unit.videos) for unit in units}
    failed = []
    with tqdm(
        total=len(videos),
        initial=len(videos) - len(pending),
        desc=title,
        unit="video",
        disable=not sys.stderr.isatty(),
    ) as bar:
        for result in process_units(job, units, workers):
            bar.update(size[result.unit])
            if result.error:
                failed.append(result.error)
    if failed:
        raise OSError(f"{len(failed)} of {len(units)} units of {title} failed, the first: {failed[0]}")


def read_measured(
    job: FeatureJob, measure: Measure, videos: Sequence[Video], keys: Sequence[str]
) -> Measured:
    """Read the values of one measure; a damaged file is removed.

    Raises:
        OSError: a file is damaged; running the command again measures that video again.
    """
    rows, kept, rates, skipped = [], [], [], []
    for video, key in zip(videos, keys, strict=True):
        path = job.path(measure, video)
        if not path.exists():
            skipped += read_report(path.with_suffix(".jsonl"))
            continue
        value, fps = _read(path)
        rows.append(value)
        kept.append(key)
        rates.append(fps)
    values = torch.stack(rows) if rows else torch.zeros(0, 1)
    return Measured(values, kept, torch.tensor(rates), skipped)


def _read(path: Path) -> tuple[Tensor, float]:
    try:
        tensors, _ = read_tensors(path, largest=math.inf)
        if not tensors["value"].isfinite().all():
            raise ValueError("earlier versions kept values that are not finite")
        return tensors["value"], float(tensors["fps"])
    except (ValueError, KeyError, SafetensorError) as error:
        path.unlink()
        raise OSError(f"{one_line(path)} was damaged and is removed; run the same command again") from error
