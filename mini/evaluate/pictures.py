"""Section `pictures`: drawings and photographs as users bring them, each animated with all six motions.

Nothing here says whether a clip looks right: look at the sheet, pictures.png. Its rows show a picture, then the first
and the last frame of every motion.
"""

from __future__ import annotations

from functools import partial

import torch
from einops import rearrange, repeat
from torch import Tensor

from microcinema_core.metrics.bootstrap import weighted_mean
from microcinema_core.metrics.protocol.centres import read_picture
from microcinema_core.metrics.psnr import psnr
from microcinema_core.train.sheets import grid, save_picture

from ..world.captions import MOTION_PHRASES
from ..world.pictures import PICTURE_SIZE
from ..world.render import CENTRE_INDEX, MOTIONS
from .evaluation_context import ROOT, EvaluationContext
from .mini_pipeline import slices
from .results import Estimate, ResultRow

FOLDER = ROOT / "tests" / "mini" / "pictures"
"""Twelve drawings and eight photographs; its README names their sources. None was trained on."""
PICTURES = 8
"""Pictures that are animated at a time."""


def measure_pictures(evaluation: EvaluationContext) -> list[ResultRow]:
    """Animate every picture with the six motions, and save the sheet."""
    names = sorted(path.stem for path in FOLDER.glob("*.??g"))
    read = partial(read_picture, FOLDER, width=PICTURE_SIZE, height=PICTURE_SIZE)
    given = torch.cat([read(name) for name in names])
    captions = [f"a picture {MOTION_PHRASES[motion][-1]}" for motion in MOTIONS]
    made, coded = [], []
    for part in slices(len(given), PICTURES):
        latents = evaluation.pipeline.encode(given[part, None])[:, 0]
        sampled = evaluation.pipeline.sample_key_frames(
            evaluation.base,
            repeat(latents, "n c h w -> (n m) c h w", m=len(MOTIONS)),
            captions * len(latents),
            evaluation.base_settings.seeded(part.start),
        )
        made.append(evaluation.pipeline.decode(sampled))
        coded.append(evaluation.pipeline.decode(latents[:, None])[:, 0])
        evaluation.log(f"pictures: {part.stop} of {len(given)}")
    clips = rearrange(torch.cat(made), "(n m) f c h w -> n m f c h w", m=len(MOTIONS))
    ends = rearrange(clips[:, :, [0, -1]], "n m e c h w -> n (m e) c h w")
    sheet = torch.cat([given[:, None], ends], dim=1)
    save_picture(evaluation.out / "pictures.png", grid(sheet.flatten(0, 1), sheet.shape[1]))
    return _rows(given, torch.cat(coded), clips, evaluation.resamples(names))


def sharpness(pictures: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels, by picture: `... c h w` -> `...`."""
    return pictures.diff(dim=-1).abs().mean((-3, -2, -1)) + pictures.diff(dim=-2).abs().mean((-3, -2, -1))


def kept_sharpness(clips: Tensor, coded: Tensor) -> Tensor:
    """Return how sharp the first and last frames are relative to the given picture, by picture (n,).

    Coming closer spreads edges and going away packs them, so only motions within the picture count.

    Args:
        clips: pictures `n m f c h w` of every motion.
        coded: the given pictures `n c h w` after encoding and decoding.
    """
    within = [i for i, motion in enumerate(MOTIONS) if motion not in ("towards", "away")]
    ends = clips[:, within][:, :, [0, -1]]
    return sharpness(ends).mean((1, 2)) / sharpness(coded)


def _rows(given: Tensor, coded: Tensor, clips: Tensor, weights: Tensor) -> list[ResultRow]:
    centres = clips[:, :, CENTRE_INDEX]
    ours = torch.stack(
        [torch.stack([psnr(one, truth) for one in ones]) for ones, truth in zip(centres, given, strict=True)]
    )
    ceiling = torch.stack([psnr(one, truth) for one, truth in zip(coded, given, strict=True)])
    below, kept = ceiling - ours.mean(1), kept_sharpness(clips, coded)
    return [
        ResultRow(
            f"{len(given)} drawings and photographs, six motions each: centre frame's PSNR below the VAE's own",
            Estimate.of(lambda w: weighted_mean(below, w), weights).show(1, "dB"),
            f"VAE {float(ceiling.mean()):.1f} dB",
        ),
        ResultRow(
            "the same: sharpness of the first and last frame as a share of the picture's, without the zooms",
            Estimate.of(lambda w: weighted_mean(kept, w), weights).show(),
            "1 if nothing is blurred; judge by pictures.png",
        ),
    ]
