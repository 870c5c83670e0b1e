"""Clips of the table's protocol beside the models' own: evenly spaced by motion key, sampled without a host."""

from __future__ import annotations

from PIL import Image

from microcinema_core.diffusion.tsr import FACTOR, WINDOW
from mini.evaluate.mini_pipeline import FRAMES, blended
from mini.evaluate.protocol import Case, cases, frames
from mini.evaluate.tsr import ROUNDS
from mini.world.render import BASE_TIMES

from ..thumbnails import evenly
from .layout import beside, moving, rows, still
from .studio import Studio

BASE_CLIPS, TSR_CLIPS = 8, 6


def base(studio: Studio, *, split: str) -> list[list[Image.Image]]:
    """Key frames: real, made from the centre one. The still has a row of each; the animation real | made."""
    lab = studio.lab
    chosen = evenly(cases(lab.emoji, a_key=1, split=split), BASE_CLIPS)
    real = frames(lab.emoji, [case.clip for case in chosen], BASE_TIMES)
    centres = lab.family.encode(real[:, FRAMES // 2, None])[:, 0]
    captions = [case.caption for case in chosen]
    made = lab.family.decode(lab.family.key_frames(lab.base, centres, captions, lab.base_settings))
    return [[still(rows(real, made), columns=1)], moving(beside(real, made), columns=4)]


def tsr(studio: Studio) -> list[list[Image.Image]]:
    """The first round, 2 -> 8 fps, from true key frames: real, made by TSR, blended.

    The still has the second of the four windows, a row of each; the animation all of them, side by side.
    """
    lab = studio.lab
    chosen: list[Case] = evenly(cases(lab.emoji, a_key=1), TSR_CLIPS)
    real = frames(lab.emoji, [case.clip for case in chosen], ROUNDS[0].times)
    keys = lab.family.encode(real[:, ::FACTOR])
    captions = [case.caption for case in chosen]
    made = lab.family.between(lab.tsr, keys, captions, lab.tsr_settings)
    sets = real, lab.family.decode(made), lab.family.decode(blended(keys))
    window = [clips[:, FACTOR : FACTOR + WINDOW] for clips in sets]
    return [[still(rows(*window), columns=2)], moving(beside(*sets), columns=2)]
