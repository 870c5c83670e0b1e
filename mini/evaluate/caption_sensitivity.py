"""python -m mini.evaluate.caption_sensitivity: what a caption's words are worth to the base model, before it samples.

Real clips of the test split with an added motion are noised and asked for z_0 under the right caption, under the same
caption with the opposite motion, with a motion along another line, and under none. A model that hears the words errs
least under the right one; one that errs as much under the opposite knows the line of a motion, not its direction.
"""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.metrics.bootstrap import weighted_mean

from ..world.render import BASE_TIMES, CENTRE, MOTIONS
from .__main__ import WEIGHTS
from .evaluation_context import EvaluationContext
from .mini_pipeline import batches
from .protocol import directions, frames
from .rows import Estimate

ASKED = ("right", "opposite", "other line", "none")
TIMESTEPS = (999, 950, 900, 800)
CLASSES = len(MOTIONS)


def captions(own: list[str], asked: str) -> list[str]:
    """What is said of the clips in place of their captions; the six motions of a subject follow each other."""
    if asked == "none":
        return [""] * len(own)
    step = {"right": lambda m: m, "opposite": lambda m: m ^ 1, "other line": lambda m: (m + 2) % CLASSES}[
        asked
    ]
    return [own[i - i % CLASSES + step(i % CLASSES)] for i in range(len(own))]


@torch.no_grad()
def errors(lab: EvaluationContext, latents: Tensor, own: list[str], timestep: int) -> Tensor:
    """Mean squared errors of z_0, (asked, clips), for latents `n f c h w`, under the same noise."""
    sigma = lab.base.schedule.sigmas[timestep]
    centres = latents[:, BASE_TIMES.index(CENTRE)]
    found = []
    for part in batches(len(latents), CLASSES):
        z_0, seen = latents[part], centres[part]
        z_c = seen[:, None].expand_as(z_0)
        noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(part.start))
        y = z_0 + sigma * noise
        row = []
        for asked in ASKED:
            text = lab.family.context(captions(own[part], asked))
            made = lab.base.denoiser(seen, text, z_c, 1.0)(y, sigma)
            row.append((made - z_0).square().mean(dim=(1, 2, 3, 4)))
        found.append(torch.stack(row))
    return torch.cat(found, dim=1)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.evaluate.caption_sensitivity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", type=Path, default=WEIGHTS / "mini_base.safetensors")
    parser.add_argument("--image", type=Path, default=WEIGHTS / "mini_image.safetensors")
    parser.add_argument("--subjects", type=int, default=24)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    lab = EvaluationContext(
        options.image, options.base, options.base, subjects=options.subjects, say=logging.info
    )
    asked = directions(lab.emoji, subjects=lab.subjects)
    own = [one.caption for one in asked]
    latents = torch.cat([lab.family.encode(frames(lab.emoji, [one.clip], BASE_TIMES)) for one in asked])
    resamples = lab.resamples([one.key for one in asked])
    sys.stdout.write(
        f"| timestep | error under the right caption | {' | '.join(ASKED[1:])} | opposite, by motion |\n"
    )
    sys.stdout.write("|---" * (len(ASKED) + 2) + "|\n")
    for timestep in TIMESTEPS:
        sys.stdout.write(
            f"| {timestep} | {' | '.join(_cells(errors(lab, latents, own, timestep), resamples))} |\n"
        )
    return 0


def _cells(found: Tensor, resamples: Tensor) -> list[str]:
    """The error under the right caption, and how much larger it is under the others, as a share."""
    right, *others = found
    costs = [other / right - 1 for other in others]
    each = (f"{name} {float(costs[0][i::CLASSES].mean()):+.3f}" for i, name in enumerate(MOTIONS))
    more = [Estimate.of(partial(weighted_mean, cost), resamples).show() for cost in costs]
    return [f"{float(right.mean()):.4f}", *more, ", ".join(each)]


if __name__ == "__main__":
    sys.exit(main())
