"""Substitute captions: the same words with another motion."""

from __future__ import annotations

from mini.evaluate.caption_sensitivity import SUBSTITUTES, substitute_captions
from mini.world.render import MOTIONS

OPPOSITE = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "towards": "away",
    "away": "towards",
}


def test_the_other_captions_are_of_the_same_subject() -> None:
    own = [f"{subject} {motion}" for subject in ("cat", "dog") for motion in MOTIONS]
    captions = {substitute: substitute_captions(own, substitute) for substitute in SUBSTITUTES}
    assert captions["correct"] == own
    assert captions["empty"] == [""] * len(own)
    for i, caption in enumerate(own):
        subject, motion = caption.split()
        assert captions["opposite"][i] == f"{subject} {OPPOSITE[motion]}"
        other_subject, other = captions["other axis"][i].split()
        assert other_subject == subject
        assert other not in (motion, OPPOSITE[motion])
