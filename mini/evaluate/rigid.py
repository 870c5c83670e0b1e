"""Section `rigid`: prompted motions against the known truth, an unseen still that moves rigidly over a still ground.

The prompt names the direction and not the speed. So each clip is compared with the truth at every speed of the range
that was trained, and the best one counts. A clip that moves otherwise, or outside that range, fits none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.metrics.bootstrap import weighted_mean, weighted_median
from microcinema_core.metrics.psnr import decibels
from microcinema_core.train.sheets import grid, save_picture

from ..world.clips import GROWTH_SPEEDS, PATH_SPEEDS
from ..world.render import BASE_TIMES, CENTRE_INDEX, MOTIONS, Clip
from .evaluation_context import EvaluationContext
from .measures import BOX_ALPHA
from .mini_pipeline import slices
from .protocol import CaptionedClip, motion_clips, render_with_alpha
from .results import Estimate, ResultRow

SUBJECTS = 24
SPEEDS = 13
"""Speeds that are tried, evenly spaced from the slowest to the fastest that was trained."""
BATCH = 8 * len(MOTIONS)
SHEET_SUBJECTS = 12
SHEET_FRAMES = (0, CENTRE_INDEX, -1)
OURS, REPEATED, CODED = "ours", "centre frame repeated", "truth through VAE"


@dataclass(frozen=True)
class Fit:
    """The best speed of each clip, as a position in the trained range from 0 to 1, and the PSNR in dB there, (n,)."""

    psnr: Tensor
    place: Tensor


def speeds(clip: Clip) -> list[float]:
    """Return the speeds to try for the clip's motion."""
    low, high = GROWTH_SPEEDS if clip.motion in ("towards", "away") else PATH_SPEEDS
    return torch.linspace(low, high, SPEEDS).tolist()


def moving_psnr(made: Tensor, truth: Tensor, alpha: Tensor, given: Sequence[int]) -> Tensor:
    """Return the PSNR in dB of a clip in the object's box, of the mean error of all frames but the given ones.

    The box of a frame spans where the object is in it and where it was in the nearest given frames, so a copy that
    stays behind counts. Frames are `f c h w` in [-1, 1], alpha `f h w` is the true object's.
    """
    errors = []
    for index in range(len(truth)):
        if index in given:
            continue
        near = [
            max((g for g in given if g < index), default=index),
            min((g for g in given if g > index), default=index),
        ]
        there = alpha[[index, *near]].amax(0) > BOX_ALPHA
        rows, columns = there.any(1).nonzero(), there.any(0).nonzero()
        box = (
            ...,
            slice(int(rows.min()), int(rows.max()) + 1),
            slice(int(columns.min()), int(columns.max()) + 1),
        )
        errors.append((made[index][box] - truth[index][box]).square().mean())
    return decibels(torch.stack(errors).mean())


def fit(folder: Path, chosen: Sequence[CaptionedClip], made: Tensor) -> Fit:
    """Fit each clip of `made`, `n f c h w`, with the truth at every speed."""
    best = []
    for one, clip in zip(chosen, made, strict=True):
        truths = (
            render_with_alpha(folder, replace(one.clip, speed=speed), BASE_TIMES)
            for speed in speeds(one.clip)
        )
        values = torch.stack([moving_psnr(clip, truth, alpha, [CENTRE_INDEX]) for truth, alpha in truths])
        best.append((values.max(), values.argmax() / (SPEEDS - 1)))
    return Fit(*(torch.stack(column) for column in zip(*best, strict=True)))


def measure_rigid(evaluation: EvaluationContext) -> list[ResultRow]:
    """Sample the six motions of each still, fit them, and save a sheet of the first stills."""
    chosen = motion_clips(evaluation.emoji, subjects=SUBJECTS, split=evaluation.split, stills=True)
    fits: dict[str, list[Fit]] = {OURS: [], REPEATED: [], CODED: []}
    sheet = []
    for part in slices(len(chosen), BATCH):
        batch = chosen[part]
        truth = torch.stack([render_with_alpha(evaluation.emoji, one.clip, BASE_TIMES)[0] for one in batch])
        latents = evaluation.pipeline.encode(truth)
        coded = evaluation.pipeline.decode(latents)
        made = evaluation.pipeline.decode(
            evaluation.pipeline.sample_key_frames(
                evaluation.base,
                latents[:, CENTRE_INDEX],
                [one.caption for one in batch],
                evaluation.base_settings.seeded(part.start),
            )
        )
        still = coded[:, CENTRE_INDEX : CENTRE_INDEX + 1].expand_as(made)
        for kind, clips in ((OURS, made), (REPEATED, still), (CODED, coded)):
            fits[kind].append(fit(evaluation.emoji, batch, clips))
        sheet.append(made[:, list(SHEET_FRAMES)])
        evaluation.log(f"rigid motion: {part.stop} of {len(chosen)} clips")
    shown = torch.cat(sheet)[: SHEET_SUBJECTS * len(MOTIONS)].flatten(0, 1)
    save_picture(evaluation.out / "rigid.png", grid(shown, len(MOTIONS) * len(SHEET_FRAMES)))
    joined = {kind: Fit(*(torch.cat(list(c)) for c in zip(*((f.psnr, f.place) for f in found), strict=True)))
              for kind, found in fits.items()}  # fmt: skip
    return _rows(joined, evaluation.resamples([one.key for one in chosen]))


def _rows(fits: dict[str, Fit], weights: Tensor) -> list[ResultRow]:
    ours, count = fits[OURS], len(MOTIONS)

    def show(kind: str) -> str:
        psnr = fits[kind].psnr
        each = ", ".join(f"{name} {float(psnr[i::count].mean()):.1f}" for i, name in enumerate(MOTIONS))
        return f"{Estimate.of(lambda w: weighted_mean(psnr, w), weights).show(1, 'dB')}: {each}"

    place = Estimate.of(lambda w: weighted_median(ours.place, w), weights)
    at_ends = float(((ours.place == 0) | (ours.place == 1)).float().mean())
    return [
        ResultRow(
            f"rigid motion: PSNR in the box at the best speed, six motions of {len(ours.psnr) // count} stills",
            show(OURS),
            f"{REPEATED} {show(REPEATED)}; {CODED} {show(CODED)}",
            "3 dB above the family before, every motion better",
        ),
        ResultRow(
            "rigid motion: best speed, from 0 for the slowest that was trained to 1 for the fastest, median",
            place.show(),
            f"asked for none; at either end {at_ends:.2f}",
        ),
    ]
