"""Functions that make the docs' pictures; each returns the frames of its files.

Clips of the evaluation protocol are sampled without ComfyUI, the rest by the shipped workflows in ComfyUI.
"""

from __future__ import annotations

from functools import cache

import torch
from PIL import Image, ImageOps

from microcinema_core.diffusion.tsr import FACTOR, WINDOW
from microcinema_core.train.sheets import as_image
from mini.evaluate.mini_pipeline import blend
from mini.evaluate.protocol import evaluation_clips, frames
from mini.evaluate.tsr import ROUNDS
from mini.world.pictures import PICTURE_SIZE
from mini.world.render import BASE_TIMES, CENTRE_INDEX, CENTRE_TIME

from ..thumbnails import FOLDER
from .inputs import OUTSIDE, moving_prompts, own_pictures, typical_prompts
from .layout import animation, as_tensor, evenly_spaced, labelled, rows, side_by_side, still
from .studio import Studio

BASE_CLIPS, TSR_CLIPS = 8, 6
THUMBNAILS = sorted(file.stem for file in FOLDER.glob("*.json"))


def base(studio: Studio, *, split: str) -> list[list[Image.Image]]:
    """Show key frames: real ones, and those generated from the centre frame.

    The clips are evenly spaced by motion key. The still has one row each, the animation shows real | generated.
    """
    context = studio.context
    chosen = evenly_spaced(evaluation_clips(context.emoji, clips_per_key=1, split=split), BASE_CLIPS)
    real = frames(context.emoji, [one.clip for one in chosen], BASE_TIMES)
    centres = context.pipeline.encode(real[:, CENTRE_INDEX, None])[:, 0]
    captions = [one.caption for one in chosen]
    made = context.pipeline.decode(
        context.pipeline.sample_key_frames(context.base, centres, captions, context.base_settings)
    )
    return [[still(rows(real, made), columns=1)], animation(side_by_side(real, made), columns=4)]


def tsr(studio: Studio) -> list[list[Image.Image]]:
    """Show the first interpolation round, 2 to 8 fps, of true key frames: real, by TSR, blended.

    The still has the second of the four windows, one row each; the animation has all windows, side by side.
    """
    context = studio.context
    chosen = evenly_spaced(evaluation_clips(context.emoji, clips_per_key=1), TSR_CLIPS)
    real = frames(context.emoji, [one.clip for one in chosen], ROUNDS[0].times)
    keys = context.pipeline.encode(real[:, ::FACTOR])
    captions = [one.caption for one in chosen]
    made = context.pipeline.interpolate(context.tsr, keys, captions, context.tsr_settings)
    sets = real, context.pipeline.decode(made), context.pipeline.decode(blend(keys))
    window = [clips[:, FACTOR : FACTOR + WINDOW] for clips in sets]
    return [[still(rows(*window), columns=2)], animation(side_by_side(*sets), columns=2)]


def text_to_image(studio: Studio) -> list[list[Image.Image]]:
    """Show centre frames of the text workflow.

    Two rows of typical prompts, then prompts outside the vocabulary; the seed of each prompt is its index.
    """
    prompts = [*typical_prompts(studio.context.emoji), *OUTSIDE]
    made = [labelled(studio.centre_frame(text, seed), text) for seed, text in enumerate(prompts)]
    return [[still(as_tensor(made), columns=6)]]


@cache
def _clips_of_own_pictures(studio: Studio) -> list[list[Image.Image]]:
    return [studio.video(prompt=text, picture=picture) for text, picture in own_pictures()]


def from_own_pictures(studio: Studio) -> list[list[Image.Image]]:
    """Show 33 frames of each picture that users might bring.

    The still has the picture and nine frames, the animation shows picture | clip.
    """
    given = [ImageOps.fit(picture, (PICTURE_SIZE,) * 2) for _, picture in own_pictures()]
    made = _clips_of_own_pictures(studio)
    sheet = [
        frame
        for picture, clip in zip(given, made, strict=True)
        for frame in (picture, *evenly_spaced(clip, 9))
    ]
    clips = torch.stack([as_tensor(clip) for clip in made])
    repeated = as_tensor(given)[:, None].expand_as(clips)
    return [[still(as_tensor(sheet), columns=10)], animation(side_by_side(repeated, clips), columns=3)]


def cascade(studio: Studio) -> list[list[Image.Image]]:
    """Show the demo's prompt and seed after both rounds and the upscaler: every second of 129 frames."""
    video = studio.video(rounds=2, upscale=True)
    shown = [frame.resize((256, 256), Image.Resampling.LANCZOS) for frame in evenly_spaced(video, 9)]
    return [[still(as_tensor(shown), columns=3)], video[::2]]


def readme(studio: Studio) -> list[list[Image.Image]]:
    """Show a video from text for each of the six motions, and four from pictures.

    The seed of each prompt is its index. The pictures are the middle subject of the test split, and every second one
    of `own_pictures`.
    """
    emoji = studio.context.emoji
    test = evenly_spaced(evaluation_clips(emoji, clips_per_key=1), 3)[1]
    unseen = as_image((frames(emoji, [test.clip], [CENTRE_TIME])[0, 0] + 1) / 2)
    videos = [
        *(studio.video(prompt=text, seed=seed) for seed, text in enumerate(moving_prompts(emoji))),
        studio.video(prompt=test.caption, picture=unseen),
        *_clips_of_own_pictures(studio)[::2],
    ]
    return [animation(torch.stack([as_tensor(video) for video in videos]), columns=5)]


def workflow_thumbnails(studio: Studio) -> list[list[Image.Image]]:
    """Make the thumbnails of all shipped workflows."""
    return [[studio.thumbnail(name)] for name in THUMBNAILS]
