"""A tiny emoji folder for tests, in which the shade of a frame encodes its index."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from mini.world.emoji import SIZE, Emoji
from mini.world.motion_split import is_test, is_validation, motion_key

FRAMES = 40


def entry(identity: str, frames: int, *, closes: bool = True, skin: tuple[str, ...] = ()) -> Emoji:
    key = motion_key(identity)
    words = (f"thing {identity}", ("galloping", "animal", "left", "speed"))
    split = "test" if is_test(key) else "validation" if is_validation(key) else "train"
    return Emoji(
        identity, key, split, frames, frames, closes, 1.0, 1.0, *words, skin, ("man",) if skin else ()
    )


def frame_level(index: int) -> int:
    """Return the shade of frame `index`; consecutive frames are five levels apart."""
    return 30 + 5 * index


def write_world(folder: Path) -> Path:
    """Write animations, one that does not loop, stills and skin variants, in all splits; return the folder."""
    entries = [entry(f"1f4{n:02x}", FRAMES) for n in range(24)]
    entries += [entry(f"1f5{n:02x}", 1) for n in range(24)]
    entries += [entry("1f600", 30, closes=False), entry("1f3c3-1f3fb", FRAMES, skin=("light skin tone",))]
    (folder / "frames").mkdir(parents=True)
    for item in entries:
        frames = np.zeros((item.frames, SIZE, SIZE, 4), dtype=np.uint8)
        for index in range(item.frames):
            frames[index, 16:96, 16:96] = (*(frame_level(index),) * 3, 255)
        np.save(folder / "frames" / f"{item.id}.npy", frames)
    lines = [json.dumps(dataclasses.asdict(item)) for item in entries]
    (folder / "catalogue.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
