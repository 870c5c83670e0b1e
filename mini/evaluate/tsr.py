"""Section `tsr`: each round of TSR from true key frames, beside linear blending of the same latents.

It is measured on animations, and on unseen stills that move rigidly, at the speed of the training sets, where the
given frames leave only one truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from microcinema_core.diffusion.tsr import FACTOR
from microcinema_core.metrics.bootstrap import weighted_mean
from microcinema_core.metrics.distance import KernelDistance
from microcinema_core.metrics.psnr import decibels

from ..world.clips import rigid_speed
from ..world.render import CENTRE_TIME
from .evaluation_context import EvaluationContext
from .measures import seam_ratio
from .mini_pipeline import blend, slices
from .protocol import CaptionedClip, evaluation_clips, frames, motion_clips, render_with_alpha
from .results import Estimate, ResultRow
from .rigid import SUBJECTS, moving_psnr

PAIRS = 4
BATCH = 8
REAL, OURS, BLENDED, CODED = "real", "ours", "blended", "real through VAE"


@dataclass(frozen=True)
class TSRRound:
    """One round of interpolation; `stride` is the step on the timeline between its output frames."""

    name: str
    stride: int
    index: int

    @property
    def times(self) -> range:
        """The times of 17 frames around the centre, which are four pairs of key frames and what lies between."""
        reach = PAIRS * FACTOR * self.stride // 2
        return range(CENTRE_TIME - reach, CENTRE_TIME + reach + 1, self.stride)


ROUNDS = (TSRRound("2 -> 8 fps", 4, 0), TSRRound("8 -> 32 fps", 1, 1))


@dataclass(frozen=True)
class TSRMeasurements:
    """I3D features (n, 400) of each kind of clip, and numbers per clip (n,)."""

    keys: list[str]
    features: dict[str, Tensor]
    error: dict[str, Tensor]
    seams: dict[str, Tensor]


def measure_tsr(evaluation: EvaluationContext) -> list[ResultRow]:
    """Measure both rounds."""
    rows = []
    for round_ in ROUNDS:
        rows += _rows(evaluation, round_, _measure(evaluation, round_))
        rows.append(_rigid_row(evaluation, round_))
    return rows


def _measure(evaluation: EvaluationContext, round_: TSRRound) -> TSRMeasurements:
    chosen = evaluation_clips(
        evaluation.emoji, clips_per_key=evaluation.clips_per_key, split=evaluation.split
    )
    table: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for part in slices(len(chosen), BATCH):
        sets = _clip_sets(evaluation, round_, chosen[part], seed=part.start)
        for kind, pictures in sets.items():
            table["features"][kind].append(evaluation.features(pictures))
            table["seams"][kind].append(seam_ratio(pictures, FACTOR))
            table["error"][kind].append(_inner_error(pictures, sets[REAL]))
        evaluation.log(f"TSR {round_.name}: {part.stop} of {len(chosen)} clips")
    joined = {name: {kind: torch.cat(rows) for kind, rows in kinds.items()} for name, kinds in table.items()}
    return TSRMeasurements([one.key for one in chosen], **joined)


def _clip_sets(
    evaluation: EvaluationContext, round_: TSRRound, chosen: Sequence[CaptionedClip], *, seed: int
) -> dict[str, Tensor]:
    """Render or sample 17 frames `n f c h w` of each kind; `seed` is the first clip's, each next one has the next."""
    pipeline = evaluation.pipeline
    real = frames(evaluation.emoji, [one.clip for one in chosen], round_.times)
    key_frames = pipeline.encode(real[:, ::FACTOR])
    captions = [one.caption for one in chosen]
    settings = evaluation.tsr_settings.seeded(seed)
    made = pipeline.interpolate(evaluation.tsr, key_frames, captions, settings, round_=round_.index)
    return {
        REAL: real,
        OURS: pipeline.decode(made),
        BLENDED: pipeline.decode(blend(key_frames)),
        CODED: pipeline.decode(pipeline.encode(real)),
    }


def _inner_error(pictures: Tensor, real: Tensor) -> Tensor:
    """Return the mean squared error of the frames between the given ones, by clip (n,)."""
    inner = [i for i in range(real.shape[1]) if i % FACTOR]
    return (pictures[:, inner] - real[:, inner]).square().mean(dim=(1, 2, 3, 4))


def _rigid_row(evaluation: EvaluationContext, round_: TSRRound) -> ResultRow:
    """Measure the frames between in the box of rigidly moving stills."""
    chosen = [
        replace(one, clip=replace(one.clip, speed=rigid_speed(one.clip.motion)))
        for one in motion_clips(evaluation.emoji, subjects=SUBJECTS, split=evaluation.split, stills=True)
    ]
    given = range(0, len(round_.times), FACTOR)
    table: dict[str, list[Tensor]] = defaultdict(list)
    for part in slices(len(chosen), BATCH):
        alphas = [render_with_alpha(evaluation.emoji, one.clip, round_.times)[1] for one in chosen[part]]
        sets = _clip_sets(evaluation, round_, chosen[part], seed=part.start)
        for kind in (OURS, BLENDED, CODED):
            table[kind] += map(moving_psnr, sets[kind], sets[REAL], alphas, [given] * len(alphas))
        evaluation.log(f"TSR {round_.name}, rigid motion: {part.stop} of {len(chosen)} clips")
    psnr = {kind: torch.stack(values) for kind, values in table.items()}
    weights = evaluation.resamples([one.key for one in chosen])
    gain = Estimate.of(lambda w: weighted_mean(psnr[OURS] - psnr[BLENDED], w), weights)
    return ResultRow(
        f"TSR {round_.name}: rigid motion, PSNR in the box above blending, six motions of {SUBJECTS} stills",
        gain.show(1, "dB"),
        ", ".join(f"{kind} {float(value.mean()):.1f} dB" for kind, value in psnr.items()),
    )


def _rows(evaluation: EvaluationContext, round_: TSRRound, measured: TSRMeasurements) -> list[ResultRow]:
    """Build the rows of one round; only some of them have targets."""
    weights = evaluation.resamples(measured.keys)
    first = round_.stride > 1
    name = f"TSR {round_.name}"
    return [
        _distance_row(name, measured, weights),
        _psnr_row(name, measured, weights, has_target=first),
        _seam_row(name, measured, weights, has_target=not first),
    ]


def _distance_row(name: str, measured: TSRMeasurements, weights: Tensor) -> ResultRow:
    features = measured.features
    ours, blended, coded = (
        KernelDistance(features[REAL], features[kind], measured.keys) for kind in (OURS, BLENDED, CODED)
    )
    gain = Estimate.of(lambda w: blended.value(w) - ours.value(w), weights)
    return ResultRow(
        f"{name}: kernel video distance",
        f"{ours.value():.3f}",
        f"{BLENDED} {blended.value():.3f}, {CODED} {coded.value():.3f}; "
        f"{BLENDED} minus {OURS} {gain.show(3)}",
        "interval above 0",
        gain.low > 0,
    )


def _psnr_row(name: str, measured: TSRMeasurements, weights: Tensor, *, has_target: bool) -> ResultRow:
    psnr = {k: decibels(v.clamp(min=1e-9)) for k, v in measured.error.items() if k != REAL}
    lost = Estimate.of(lambda w: weighted_mean(psnr[BLENDED] - psnr[OURS], w), weights)
    return ResultRow(
        f"{name}: PSNR lost against blending",
        lost.show(1, "dB"),
        ", ".join(f"{kind} {float(value.mean()):.1f} dB" for kind, value in psnr.items()),
        "<= 3 dB" if has_target else "",
        lost.value <= 3 if has_target else None,
    )


def _seam_row(name: str, measured: TSRMeasurements, weights: Tensor, *, has_target: bool) -> ResultRow:
    seams = measured.seams
    ratio = Estimate.of(lambda w: weighted_mean(seams[OURS], w), weights)
    return ResultRow(
        f"{name}: frame difference next to given frames, relative to that between generated ones",
        ratio.show(),
        ", ".join(f"{kind} {float(value.mean()):.2f}" for kind, value in seams.items() if kind != OURS),
        "0.9 to 1.1" if has_target else "",
        0.9 <= ratio.value <= 1.1 if has_target else None,
    )
