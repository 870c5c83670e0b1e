"""What is said of a clip in place of its own caption: the same words with another motion."""

from __future__ import annotations

from mini.evaluate.caption_sensitivity import ASKED, captions
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
    said = {asked: captions(own, asked) for asked in ASKED}
    assert said["right"] == own
    assert said["none"] == [""] * len(own)
    for i, caption in enumerate(own):
        subject, motion = caption.split()
        assert said["opposite"][i] == f"{subject} {OPPOSITE[motion]}"
        other_subject, other = said["other line"][i].split()
        assert other_subject == subject
        assert other not in (motion, OPPOSITE[motion])
