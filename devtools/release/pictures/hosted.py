"""What a person gets: pictures and videos by the shipped workflows in the real ComfyUI."""

from __future__ import annotations

from functools import cache

import torch
from PIL import Image, ImageOps

from microcinema_core.train.sheets import as_image
from mini.evaluate.protocol import cases, frames
from mini.world.pictures import PICTURE_SIZE
from mini.world.render import CENTRE

from ..thumbnails import FOLDER, evenly
from .given import OUTSIDE, SHOWN, own_pictures, typical_prompts
from .layout import as_tensor, beside, labelled, moving, still
from .studio import Studio

THUMBNAILS = sorted(file.stem for file in FOLDER.glob("*.json"))


def text_to_image(studio: Studio) -> list[list[Image.Image]]:
    """The text workflow's centre frames: two rows of typical prompts, then those outside of the vocabulary.

    Each prompt's seed is its number.
    """
    prompts = [*typical_prompts(studio.lab.emoji), *OUTSIDE]
    made = [labelled(studio.centre_frame(text, seed), text) for seed, text in enumerate(prompts)]
    return [[still(as_tensor(made), columns=6)]]


@cache
def _own_clips(studio: Studio) -> list[list[Image.Image]]:
    return [studio.video(prompt=text, picture=picture) for text, picture in own_pictures()]


def own(studio: Studio) -> list[list[Image.Image]]:
    """33 frames of each picture. The still has the picture and nine frames; the animation picture | clip."""
    given = [ImageOps.fit(picture, (PICTURE_SIZE,) * 2) for _, picture in own_pictures()]
    made = _own_clips(studio)
    sheet = [
        frame for picture, clip in zip(given, made, strict=True) for frame in (picture, *evenly(clip, 9))
    ]
    clips = torch.stack([as_tensor(clip) for clip in made])
    kept = as_tensor(given)[:, None].expand_as(clips)
    return [[still(as_tensor(sheet), columns=10)], moving(beside(kept, clips), columns=3)]


def cascade(studio: Studio) -> list[list[Image.Image]]:
    """The demo's own prompt and seed through both rounds and the upscaler: 129 frames, every second one shown."""
    video = studio.video(rounds=2, upscale=True)
    shown = [frame.resize((256, 256), Image.Resampling.LANCZOS) for frame in evenly(video, 9)]
    return [[still(as_tensor(shown), columns=3)], video[::2]]


def readme(studio: Studio) -> list[list[Image.Image]]:
    """Above from texts alone; below from pictures: the middle unseen subject, and every other one of `own`."""
    emoji = studio.lab.emoji
    case = evenly(cases(emoji, a_key=1), 3)[1]
    unseen = as_image((frames(emoji, [case.clip], [CENTRE])[0, 0] + 1) / 2)
    videos = [
        *(studio.video(prompt=text, seed=seed) for text, seed in SHOWN),
        studio.video(prompt=case.caption, picture=unseen),
        *_own_clips(studio)[::2],
    ]
    return [moving(torch.stack([as_tensor(video) for video in videos]), columns=4)]


def workflow_thumbnails(studio: Studio) -> list[list[Image.Image]]:
    """Those of all shipped workflows."""
    return [[studio.thumbnail(name)] for name in THUMBNAILS]
