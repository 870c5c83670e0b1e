"""Section `text`: how often a sampled clip shows the motion that its caption names, by a linear classifier.

The classifier learns from real clips of the train split how the object's extent changes under each of the six motions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from microcinema_core.metrics.bootstrap import weighted_mean

from ..world.render import BASE_TIMES, CENTRE_INDEX, MOTIONS
from .evaluation_context import EvaluationContext
from .measures import object_masks
from .mini_pipeline import slices
from .protocol import CaptionedClip, backgrounds, frames, motion_clips
from .results import Estimate, ResultRow

CLASSES = len(MOTIONS)
BATCH = 8 * CLASSES
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TRAIN_SUBJECTS = 150
TRAIN_BATCH = 60


def measure_text(evaluation: EvaluationContext) -> list[ResultRow]:
    """Sample all six motions from each centre frame, and classify them."""
    classify = train_motion_classifier(evaluation.emoji)
    chosen = motion_clips(evaluation.emoji, subjects=evaluation.subjects, split=evaluation.split)
    wanted = torch.arange(len(chosen)) % CLASSES
    real, sampled = [], []
    for part in slices(len(chosen), BATCH):
        grounds = backgrounds([one.clip for one in chosen[part]])
        truth = frames(evaluation.emoji, [one.clip for one in chosen[part]], BASE_TIMES)
        real.append(classify(truth, grounds))
        sampled.append(classify(_sample(evaluation, truth, chosen[part], seed=part.start), grounds))
        evaluation.log(f"text: {part.stop} of {len(chosen)} clips")
    resamples = evaluation.resamples([one.key for one in chosen])
    return [_row(evaluation.subjects, torch.cat(real), torch.cat(sampled), wanted, resamples)]


def _sample(
    evaluation: EvaluationContext, real: Tensor, chosen: Sequence[CaptionedClip], *, seed: int
) -> Tensor:
    """Sample clips `n f c h w` from the centre frames and captions of real ones."""
    centres = evaluation.pipeline.encode(real[:, CENTRE_INDEX : CENTRE_INDEX + 1])[:, 0]
    captions = [one.caption for one in chosen]
    latents = evaluation.pipeline.sample_key_frames(
        evaluation.base, centres, captions, evaluation.base_settings.seeded(seed)
    )
    return evaluation.pipeline.decode(latents)


def _row(subjects: int, real: Tensor, sampled: Tensor, wanted: Tensor, resamples: Tensor) -> ResultRow:
    """Compare the motions shown by real and sampled clips with the wanted ones, all (n,) indices into `MOTIONS`."""
    right = (sampled == wanted).float()
    accuracy = Estimate.of(lambda w: weighted_mean(right, w), resamples)
    axis = float((sampled // 2 == wanted // 2).float().mean())
    each = ", ".join(f"{name} {float(right[i::CLASSES].mean()):.2f}" for i, name in enumerate(MOTIONS))
    return ResultRow(
        f"text: accuracy of the prompted motion, six motions of {subjects} centre frames",
        f"{accuracy.show()}: {each}",
        f"chance {1 / CLASSES:.3f}, real clips {float((real == wanted).float().mean()):.3f}; the right axis {axis:.2f}",
        ">= 0.95",
        accuracy.value >= 0.95,
    )


def extent_slopes(clips: Tensor, grounds: Tensor) -> Tensor:
    """Return how the object's extent changes over time, (n, 2 * quantiles + 1).

    These are slopes over time of quantiles of the object's pixels along x and along y, in fractions of the picture's
    edge, and of the logarithm of its area.

    Args:
        clips: pictures `n f c h w`.
        grounds: their backgrounds `n c h w`.
    """
    masks = object_masks(clips, grounds).float()
    area = masks.sum((2, 3)).clamp(min=1)
    tracks = [*_quantiles(masks.sum(2)), *_quantiles(masks.sum(3)), area.log()]
    time = torch.linspace(-1, 1, clips.shape[1])
    values = torch.stack(tracks, dim=1)
    return (values * time).sum(2) / time.square().sum()


def _quantiles(profile: Tensor) -> list[Tensor]:
    """Return the positions in [0, 1] of `QUANTILES` of a profile `n f w`, each `n f`."""
    share = profile.cumsum(2) / profile.sum(2, keepdim=True).clamp(min=1)
    return [(share < q).float().mean(2) for q in QUANTILES]


class MotionClassifier:
    """Multinomial logistic regression on `extent_slopes`."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.scale = features.std(0).clamp(min=1e-6)
        self.weight = torch.zeros(features.shape[1] + 1, CLASSES, requires_grad=True)
        optimizer = torch.optim.LBFGS([self.weight], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(self._logits(features), labels) + 1e-4 * self.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]

    def _logits(self, features: Tensor) -> Tensor:
        rows = torch.cat([features / self.scale, torch.ones(len(features), 1)], dim=1)
        return rows @ self.weight

    @torch.no_grad()
    def __call__(self, clips: Tensor, grounds: Tensor) -> Tensor:
        """Classify clips `n f c h w` on backgrounds `n c h w`; return indices into `MOTIONS`, (n,)."""
        return self._logits(extent_slopes(clips, grounds)).argmax(1)


def train_motion_classifier(folder: Path) -> MotionClassifier:
    """Train on real clips of the train split, none of which is ever evaluated."""
    chosen = motion_clips(folder, subjects=TRAIN_SUBJECTS, split="train")
    features = []
    for part in slices(len(chosen), TRAIN_BATCH):
        clips = [one.clip for one in chosen[part]]
        features.append(extent_slopes(frames(folder, clips, BASE_TIMES), backgrounds(clips)))
    labels = torch.arange(len(chosen)) % CLASSES
    return MotionClassifier(torch.cat(features), labels)
