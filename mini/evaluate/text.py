"""Row `text`: whether a motion that the caption names is the one that the clip shows."""

from __future__ import annotations

import torch

from microcinema_core.metrics.bootstrap import weighted_mean

from ..world.render import BASE_TIMES, CENTRE, MOTIONS
from .direction import learn_directions
from .evaluation_context import EvaluationContext
from .mini_pipeline import batches
from .protocol import backgrounds, directions, frames
from .rows import Estimate, Row

CLASSES = len(MOTIONS)
BATCH = 8 * CLASSES


def measure_text(lab: EvaluationContext) -> list[Row]:
    """The six motions of each centre frame, asked for and recognised."""
    classify = learn_directions(lab.emoji)
    asked = directions(lab.emoji, subjects=lab.subjects)
    right_real, right_made, right_line = [], [], []
    centre = BASE_TIMES.index(CENTRE)
    for part in batches(len(asked), BATCH):
        clips = [one.clip for one in asked[part]]
        grounds = backgrounds(clips)
        wanted = torch.arange(part.start, part.stop) % CLASSES
        real = frames(lab.emoji, clips, BASE_TIMES)
        centres = lab.family.encode(real[:, centre : centre + 1])[:, 0]
        latents = lab.family.key_frames(
            lab.base, centres, [one.caption for one in asked[part]], lab.base_settings.seeded(part.start)
        )
        right_real.append(classify(real, grounds) == wanted)
        shown = classify(lab.family.decode(latents), grounds)
        right_made.append(shown == wanted)
        right_line.append(shown // 2 == wanted // 2)
        lab.say(f"text: {part.stop} of {len(asked)} clips")
    real_right, made_right = torch.cat(right_real).float(), torch.cat(right_made).float()
    made = Estimate.of(lambda w: weighted_mean(made_right, w), lab.resamples([one.key for one in asked]))
    line = float(torch.cat(right_line).float().mean())
    each = ", ".join(f"{name} {float(made_right[i::CLASSES].mean()):.2f}" for i, name in enumerate(MOTIONS))
    return [
        Row(
            f"text: of six motions asked of {lab.subjects} centre frames, shown ({each}; either way {line:.2f})",
            made.show(),
            f"chance {1 / CLASSES:.3f}, real clips {float(real_right.mean()):.3f}",
            ">= 0.80",
            made.value >= 0.8,
        )
    ]
