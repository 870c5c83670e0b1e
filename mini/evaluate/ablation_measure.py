"""Sample a trained variant in one way and store what is measured of each clip, so that all statistics come later."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from microcinema_core.data.shards import write_shard
from microcinema_core.diffusion.image_model import ImageModel
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_image_model
from microcinema_core.files.safetensors_io import read_tensors
from microcinema_core.metrics.psnr import frame_difference

from ..world.captions import subject, with_article
from ..world.render import BASE_TIMES, CENTRE_INDEX, CENTRE_TIME
from .ablation_plan import Cell
from .evaluation_context import EvaluationContext
from .image_model import draw_pictures
from .measures import box_psnr, histogram_drift
from .mini_pipeline import slices
from .protocol import CaptionedClip, backgrounds, evaluation_clips, frames, motion_clips, silhouettes
from .text import CLASSES, MotionClassifier, train_motion_classifier

BATCH = 8
Values = dict[str, Tensor]
"""Numbers of each clip, (n,), and `features` (n, 400) in half precision; `prompted` is of the clips with a motion."""


@dataclass
class Bench:
    """The clips that every cell is measured on, and the real clips' own values.

    Attributes:
        context: image file, split, number of clips; its base model is replaced for each run.
        folder: where values are stored.
    """

    context: EvaluationContext
    folder: Path

    @cached_property
    def clips(self) -> list[CaptionedClip]:
        """Clips whose animation is the motion."""
        per_key, split = self.context.clips_per_key, self.context.split
        return list(evaluation_clips(self.context.emoji, clips_per_key=per_key, split=split))

    @cached_property
    def prompted(self) -> list[CaptionedClip]:
        """Clips with each of the six motions that a prompt can name."""
        return motion_clips(self.context.emoji, subjects=self.context.subjects, split=self.context.split)

    @cached_property
    def classify(self) -> MotionClassifier:
        """Tells the six motions apart."""
        return train_motion_classifier(self.context.emoji)

    @cached_property
    def image_model(self) -> ImageModel:
        """The family's image model, which draws centre frames."""
        return load_image_model(read_checkpoint(self.context.image_file, expect_roles=("image",)))

    def real(self) -> Values:
        """Return the values of the real clips; they are measured once."""
        return self._stored[0]

    def keys(self, which: Literal["clips", "prompted"]) -> list[str]:
        """Return the motion keys of the clips; they are stored beside the values, which say nothing without them."""
        return json.loads(self._stored[1][which])

    @cached_property
    def _stored(self) -> tuple[Values, dict[str, str]]:
        path = self.folder / "real.safetensors"
        if not path.exists():
            keys = {"clips": self.clips, "prompted": self.prompted}
            named = {name: json.dumps([one.key for one in clips]) for name, clips in keys.items()}
            write_shard(path, self._measure_real(), named)
        return read_tensors(path, largest=math.inf)

    def _measure_real(self) -> Values:
        rows: dict[str, list[Tensor]] = {"features": [], "motion": [], "drift": []}
        for part in slices(len(self.clips), BATCH):
            given = [one.clip for one in self.clips[part]]
            pictures = frames(self.context.emoji, given, BASE_TIMES)
            rows["features"].append(self.context.features(pictures).half())
            rows["motion"].append(frame_difference(pictures))
            rows["drift"].append(histogram_drift(pictures, backgrounds(given)))
        return {name: torch.cat(parts) for name, parts in rows.items()}

    def values(self, run: str, file: Path, cell: Cell, seed: int) -> Values:
        """Return the values of one run, sampled as a cell says; they are measured once.

        Args:
            run: name of the training run, for the folder of the values.
            file: the base model that it wrote.
            cell: how to sample it.
            seed: of the run; its samples have noise of their own.
        """
        path = self.path(run, cell)
        if not path.exists():
            context = replace(self.context, base_file=file)
            shared = ("emoji", "pipeline", "i3d")
            context.__dict__.update({k: v for k, v in self.context.__dict__.items() if k in shared})
            context.base_settings = replace(self.context.base_settings, gamma=cell.gamma, seed=1000 * seed)
            made = self._measure_clips(context, cell)
            made["prompted"] = self._measure_prompted(context, cell)
            write_shard(path, made)
        return read_tensors(path, largest=math.inf)[0]

    def path(self, run: str, cell: Cell) -> Path:
        """Return where the values of a run and a cell are stored."""
        return self.folder / run / f"{cell.key}.safetensors"

    def _measure_clips(self, context: EvaluationContext, cell: Cell) -> Values:
        rows: dict[str, list[Tensor]] = {"features": [], "motion": [], "drift": [], "centre_psnr": []}
        for part in slices(len(self.clips), BATCH):
            batch = self.clips[part]
            given = [one.clip for one in batch]
            truth, pictures = self._sample(context, cell, batch, seed=part.start)
            object_at = silhouettes(context.emoji, given, CENTRE_TIME)
            rows["features"].append(context.features(pictures).half())
            rows["motion"].append(frame_difference(pictures))
            rows["drift"].append(histogram_drift(pictures, backgrounds(given)))
            rows["centre_psnr"].append(box_psnr(pictures[:, CENTRE_INDEX], truth, object_at))
        return {name: torch.cat(parts) for name, parts in rows.items()}

    def _measure_prompted(self, context: EvaluationContext, cell: Cell) -> Tensor:
        """Return 1 for each clip that shows the prompted motion, else 0."""
        shown = []
        for part in slices(len(self.prompted), 8 * CLASSES):
            batch = self.prompted[part]
            _, pictures = self._sample(context, cell, batch, seed=len(self.clips) + part.start)
            shown.append(self.classify(pictures, backgrounds([one.clip for one in batch])))
        return (torch.cat(shown) == torch.arange(len(self.prompted)) % CLASSES).float()

    def _sample(
        self, context: EvaluationContext, cell: Cell, batch: Sequence[CaptionedClip], *, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return the true centre frames `n c h w` and sampled clips `n f c h w`, in [-1, 1]."""
        pipeline, captions = context.pipeline, captions_of(cell, batch)
        truth = frames(context.emoji, [one.clip for one in batch], [CENTRE_TIME])
        centres = truth
        if cell.centres == "drawn":
            centres = draw_pictures(self.image_model, pipeline, captions, seed=seed)[:, None]
        settings = context.base_settings.seeded(seed)
        latents = pipeline.sample_key_frames(context.base, pipeline.encode(centres)[:, 0], captions, settings)
        return truth[:, 0], pipeline.decode(latents)


def captions_of(cell: Cell, batch: Sequence[CaptionedClip]) -> list[str]:
    """Return the captions of clips: their own, or the subject's name alone."""
    if cell.captions == "full":
        return [one.caption for one in batch]
    return [with_article(subject(one.clip.emoji)) for one in batch]
