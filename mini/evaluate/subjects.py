"""Section `subjects`: how many known subjects are recognised when text to image draws them, by `classifier`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor

from microcinema_core.diffusion.image_model import ImageModel
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_image_model
from microcinema_core.metrics.bootstrap import weighted_mean
from microcinema_core.train.sheets import grid, save_picture

from ..world.captions import MOTION_PHRASES, subject, with_article
from ..world.render import MOTIONS
from .classifier import (
    BLUR,
    CHECKS,
    Subject,
    SubjectClassifier,
    blurred,
    get_classifier,
    known_subjects,
    pictures_of,
)
from .evaluation_context import EvaluationContext
from .image_model import draw_pictures
from .results import Estimate, ResultRow

SEEDS = 4
SHEET_COLUMNS = 20
REAL_AT_LEAST, BLURRED_AT_MOST = 0.95, 0.10
"""What the classifier must reach to be believed."""


def prompts(subjects: Sequence[Subject], *, moving: bool = False) -> list[str]:
    """Return a prompt for each subject: the first variant's name, on white; `moving` names the six motions in turn."""
    names = [with_article(subject(one.variants[0])) for one in subjects]
    phrases = cycle(MOTION_PHRASES[motion][0] for motion in MOTIONS)
    if moving:
        names = [f"{name} {phrase}" for name, phrase in zip(names, phrases, strict=False)]
    return [f"{name} on a white background" for name in names]


def measure_subjects(evaluation: EvaluationContext) -> list[ResultRow]:
    """Draw each subject with every seed, classify the pictures, and save those of the first seed as a sheet.

    Raises:
        ValueError: the classifier is not good enough to judge.
    """
    subjects = known_subjects(evaluation.emoji)
    judge = get_classifier(evaluation.emoji, subjects, evaluation.out)
    unseen, labels = pictures_of(evaluation.emoji, subjects, count=CHECKS, seed=1)
    real = float((judge.recognise(unseen) == labels).float().mean())
    blur = float((judge.recognise(blurred(unseen)) == labels).float().mean())
    if real < REAL_AT_LEAST or blur > BLURRED_AT_MOST:
        raise ValueError(
            f"the classifier knows {real:.0%} of real pictures and {blur:.0%} of blurred ones; at least "
            f"{REAL_AT_LEAST:.0%} and at most {BLURRED_AT_MOST:.0%} were expected: delete it in {evaluation.out}, or "
            "change its training"
        )
    with torch.no_grad():
        coded = torch.cat(
            [evaluation.pipeline.decode(part[:, None])[:, 0] for part in _coded(evaluation, unseen)]
        )
    through_vae = float((judge.recognise(coded) == labels).float().mean())
    image = read_checkpoint(evaluation.image_file, expect_roles=("image",))
    model = load_image_model(image, dtype=evaluation.dtype)
    share = _recognised(evaluation, model, judge, prompts(subjects), "subjects")
    moving = _recognised(evaluation, model, judge, prompts(subjects, moving=True), "subjects_moving")
    weights = evaluation.resamples([one.key for one in subjects])
    return [
        ResultRow(
            f"text to image: recognised of {len(subjects)} known subjects, {SEEDS} seeds",
            Estimate.of(lambda w: weighted_mean(share, w), weights).show(),
            f"chance {1 / len(subjects):.2f}, real pictures {real:.2f}, through VAE {through_vae:.2f}, "
            f"blurred to {BLUR}x{BLUR} {blur:.2f}; with every seed {float((share == 1).float().mean()):.2f}",
            ">= 0.70",
            float(share.mean()) >= 0.7,
        ),
        ResultRow(
            "the same with a motion in the prompt, as the prompts of videos have",
            Estimate.of(lambda w: weighted_mean(moving, w), weights).show(),
            f"with every seed {float((moving == 1).float().mean()):.2f}",
        ),
    ]


def _recognised(
    evaluation: EvaluationContext, model: ImageModel, judge: SubjectClassifier, texts: list[str], name: str
) -> Tensor:
    """Return the share of seeds with which each prompt's picture is recognised; save those of the first seed."""
    right = []
    for seed in range(SEEDS):
        pictures = draw_pictures(model, evaluation.pipeline, texts, seed=seed)
        right.append((judge.recognise(pictures) == torch.arange(len(texts))).float())
        evaluation.log(f"{name}: seed {seed}, {float(right[-1].mean()):.0%} recognised")
        if seed == 0:
            save_picture(evaluation.out / f"{name}.png", grid(pictures, SHEET_COLUMNS))
    return torch.stack(right).mean(0)


def _coded(evaluation: EvaluationContext, pictures: Tensor) -> list[Tensor]:
    return [evaluation.pipeline.encode(part[None])[0] for part in pictures.split(32)]
