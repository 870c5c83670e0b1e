"""Which of the six added motions a clip shows: a linear classifier of how the object's extent changes, learnt from
real clips of the train split."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..world.render import BASE_TIMES, MOTIONS
from .measures import object_masks
from .protocol import backgrounds, directions, frames

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TRAIN_SUBJECTS = 150


def extent_slopes(clips: Tensor, grounds: Tensor) -> Tensor:
    """How the object's extent moves over time: `n f c h w` -> (n, 2 * quantiles + 1).

    Slopes over time of quantiles of the object's pixels along x and along y, as a share of the picture, and of the
    logarithm of its area.
    """
    masks = object_masks(clips, grounds).float()
    area = masks.sum((2, 3)).clamp(min=1)
    tracks = [*_quantiles(masks.sum(2)), *_quantiles(masks.sum(3)), area.log()]
    time = torch.linspace(-1, 1, clips.shape[1])
    values = torch.stack(tracks, dim=1)
    return (values * time).sum(2) / time.square().sum()


def _quantiles(profile: Tensor) -> list[Tensor]:
    """Positions in [0, 1] below which so much of a profile `n f w` lies, each `n f`."""
    share = profile.cumsum(2) / profile.sum(2, keepdim=True).clamp(min=1)
    return [(share < q).float().mean(2) for q in QUANTILES]


class DirectionClassifier:
    """Multinomial logistic regression on `extent_slopes`."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.scale = features.std(0).clamp(min=1e-6)
        self.weight = torch.zeros(features.shape[1] + 1, len(MOTIONS), requires_grad=True)
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
        """Indices into `MOTIONS`, (n,)."""
        return self._logits(extent_slopes(clips, grounds)).argmax(1)


def learn_directions(folder: Path) -> DirectionClassifier:
    """From real clips of train subjects, none of which is ever measured."""
    features = []
    asked = directions(folder, subjects=TRAIN_SUBJECTS, split="train")
    for start in range(0, len(asked), 60):
        clips = [one.clip for one in asked[start : start + 60]]
        features.append(extent_slopes(frames(folder, clips, BASE_TIMES), backgrounds(clips)))
    labels = torch.arange(len(asked)) % len(MOTIONS)
    return DirectionClassifier(torch.cat(features), labels)
