"""Rows of TSR: each of its two rounds from true frames, beside the same latents blended."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from microcinema_core.diffusion.tsr import FACTOR
from microcinema_core.metrics.bootstrap import weighted_mean
from microcinema_core.metrics.distance import KernelDistance
from microcinema_core.metrics.psnr import decibels

from ..world.render import CENTRE
from .evaluation_context import EvaluationContext
from .measures import join_ratio
from .mini_pipeline import batches, blended
from .protocol import cases, frames
from .rows import Estimate, Row

PAIRS = 4
BATCH = 8


@dataclass(frozen=True)
class Round:
    """One round's frames: `stride` on the timeline between the frames that are made."""

    name: str
    stride: int

    @property
    def times(self) -> range:
        """Four pairs of key frames around the centre: 17 frames."""
        reach = PAIRS * FACTOR * self.stride // 2
        return range(CENTRE - reach, CENTRE + reach + 1, self.stride)


ROUNDS = (Round("2 -> 8 fps", 4), Round("8 -> 32 fps", 1))


def measure_tsr(lab: EvaluationContext) -> list[Row]:
    """Both rounds."""
    return [row for round_ in ROUNDS for row in _measure_round(lab, round_)]


def _measure_round(lab: EvaluationContext, round_: Round) -> list[Row]:
    chosen = cases(lab.emoji, a_key=lab.a_key)
    features: dict[str, list[Tensor]] = defaultdict(list)
    error: dict[str, list[Tensor]] = defaultdict(list)
    joins: dict[str, list[Tensor]] = defaultdict(list)
    for part in batches(len(chosen), BATCH):
        batch = chosen[part]
        real = frames(lab.emoji, [case.clip for case in batch], round_.times)
        keys = lab.family.encode(real[:, ::FACTOR])
        captions = [case.caption for case in batch]
        made = lab.family.between(lab.tsr, keys, captions, lab.tsr_settings.seeded(part.start))
        sets = {
            "real": real,
            "ours": lab.family.decode(made),
            "blended": lab.family.decode(blended(keys)),
            "vae": lab.family.decode(lab.family.encode(real)),
        }
        for kind, pictures in sets.items():
            features[kind].append(lab.features(pictures))
            joins[kind].append(join_ratio(pictures, FACTOR))
            error[kind].append(_inner_error(pictures, real))
        lab.say(f"TSR {round_.name}: {part.stop} of {len(chosen)} clips")
    keys_of = [case.key for case in chosen]
    return _rows(
        lab, round_, keys_of, *({k: torch.cat(v) for k, v in t.items()} for t in (features, error, joins))
    )


def _inner_error(pictures: Tensor, real: Tensor) -> Tensor:
    """Mean squared error of the frames between the given ones, by clip."""
    inner = [i for i in range(real.shape[1]) if i % FACTOR]
    return (pictures[:, inner] - real[:, inner]).square().mean(dim=(1, 2, 3, 4))


def _rows(
    lab: EvaluationContext,
    round_: Round,
    keys: list[str],
    features: dict[str, Tensor],
    error: dict[str, Tensor],
    joins: dict[str, Tensor],
) -> list[Row]:
    weights = lab.resamples(keys)
    distance = {
        kind: KernelDistance(features["real"], features[kind], keys) for kind in ("ours", "blended", "vae")
    }
    gain = Estimate.of(lambda w: distance["blended"].value(w) - distance["ours"].value(w), weights)
    psnr = {k: decibels(v.clamp(min=1e-9)) for k, v in error.items() if k != "real"}
    below = Estimate.of(lambda w: weighted_mean(psnr["blended"] - psnr["ours"], w), weights)
    first = round_.stride > 1
    flicker = Estimate.of(lambda w: weighted_mean(joins["ours"], w), weights)
    return [
        Row(
            f"TSR {round_.name}: kernel video distance",
            f"{distance['ours'].value():.3f}",
            f"blended {distance['blended'].value():.3f}, VAE of real {distance['vae'].value():.3f}; "
            f"blended less ours {gain.show(3)}",
            "interval above 0" if first else "",
            gain.low > 0 if first else None,
        ),
        Row(
            f"TSR {round_.name}: PSNR below blended",
            below.show(1, "dB"),
            ", ".join(f"{kind} {float(value.mean()):.1f} dB" for kind, value in psnr.items()),
            "<= 3 dB" if first else "",
            below.value <= 3 if first else None,
        ),
        Row(
            f"TSR {round_.name}: frame difference beside given frames, over that between made ones",
            flicker.show(),
            ", ".join(f"{kind} {float(value.mean()):.2f}" for kind, value in joins.items() if kind != "ours"),
            "" if first else "0.9 to 1.1",
            None if first else 0.9 <= flicker.value <= 1.1,
        ),
    ]
