"""How much the denoising error depends on the caption: `python -m mini.evaluate.caption_sensitivity`.

Real clips with an added motion are noised, and the model predicts z_0 under four captions: the correct one, the
same with the opposite motion, the same with a motion along another axis, and the empty one. A model that uses the
caption has the smallest error under the correct one. If the error is as small under the opposite motion, the model
knows the axis of a motion but not its direction.
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

from ..world.render import BASE_TIMES, CENTRE_INDEX, MOTIONS
from .evaluation_context import WEIGHTS, EvaluationContext
from .mini_pipeline import slices
from .protocol import frames, motion_clips
from .results import Estimate

SUBSTITUTES = ("correct", "opposite", "other axis", "empty")
TIMESTEPS = (999, 950, 900, 800)
CLASSES = len(MOTIONS)


def substitute_captions(captions: list[str], substitute: str) -> list[str]:
    """Replace each clip's caption by one of `SUBSTITUTES`; the six motions of a subject are adjacent."""
    if substitute == "empty":
        return [""] * len(captions)
    other_motion = {
        "correct": lambda m: m,
        "opposite": lambda m: m ^ 1,
        "other axis": lambda m: (m + 2) % CLASSES,
    }[substitute]
    return [captions[i - i % CLASSES + other_motion(i % CLASSES)] for i in range(len(captions))]


@torch.no_grad()
def denoising_errors(
    evaluation: EvaluationContext, latents: Tensor, captions: list[str], timestep: int
) -> Tensor:
    """Return the mean squared error of z_0 under each substitute caption and the same noise.

    Args:
        evaluation: the models.
        latents: latents of the clips, `n f c h w`.
        captions: the clips' own captions.
        timestep: timestep of the noise, 0 to 999.

    Returns:
        Errors (substitutes, clips).
    """
    sigma = evaluation.base.schedule.sigmas[timestep]
    centres = latents[:, CENTRE_INDEX]
    errors = []
    for part in slices(len(latents), CLASSES):
        z_0, appearance = latents[part], centres[part]
        z_c = appearance[:, None].expand_as(z_0)
        noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(part.start))
        y = z_0 + sigma * noise
        row = []
        for substitute in SUBSTITUTES:
            text = evaluation.pipeline.encode_text(substitute_captions(captions[part], substitute))
            predicted = evaluation.base.denoiser(appearance, text, z_c, 1.0)(y, sigma)
            row.append((predicted - z_0).square().mean(dim=(1, 2, 3, 4)))
        errors.append(torch.stack(row))
    return torch.cat(errors, dim=1)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    evaluation = EvaluationContext(
        options.image, options.base, options.base, subjects=options.subjects, log=logging.info
    )
    chosen = motion_clips(evaluation.emoji, subjects=evaluation.subjects, split=evaluation.split)
    captions = [one.caption for one in chosen]
    latents = torch.cat(
        [evaluation.pipeline.encode(frames(evaluation.emoji, [one.clip], BASE_TIMES)) for one in chosen]
    )
    resamples = evaluation.resamples([one.key for one in chosen])
    names = " | ".join(SUBSTITUTES[1:])
    sys.stdout.write(f"| timestep | error under the correct caption | {names} | opposite, by motion |\n")
    sys.stdout.write("|---" * (len(SUBSTITUTES) + 2) + "|\n")
    for timestep in TIMESTEPS:
        cells = _cells(denoising_errors(evaluation, latents, captions, timestep), resamples)
        sys.stdout.write(f"| {timestep} | {' | '.join(cells)} |\n")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mini.evaluate.caption_sensitivity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base", type=Path, default=WEIGHTS / "mini_base.safetensors", help="default: the shipped model"
    )
    parser.add_argument(
        "--image", type=Path, default=WEIGHTS / "mini_image.safetensors", help="default: the shipped model"
    )
    parser.add_argument("--subjects", type=int, default=24, help="centre frames; default: %(default)s")
    return parser.parse_args(arguments)


def _cells(errors: Tensor, resamples: Tensor) -> list[str]:
    """Format the error under the correct caption, and the relative increase under each of the others."""
    correct, *others = errors
    increases = [other / correct - 1 for other in others]
    each = (f"{name} {float(increases[0][i::CLASSES].mean()):+.3f}" for i, name in enumerate(MOTIONS))
    estimates = [Estimate.of(partial(weighted_mean, one), resamples).show() for one in increases]
    return [f"{float(correct.mean()):.4f}", *estimates, ", ".join(each)]


if __name__ == "__main__":
    sys.exit(main())
