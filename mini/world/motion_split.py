"""Motion keys, and the train/test split by motion.

Variants of one motion (skin tones, genders) share a key, and a key is wholly in train or wholly in test. The key of a
gendered sequence keeps the joiner that stood before the gender sign (`1f3c3-200d`). The neutral form (`1f3c3`)
therefore has a key of its own, which is assigned independently. Where one of the two falls into test, the other is
`held`, in neither split: otherwise `person running` could be trained on and `man running` tested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "test", "held"]

SKIN_TONES = {
    "1f3fb": "light skin tone",
    "1f3fc": "medium light skin tone",
    "1f3fd": "medium skin tone",
    "1f3fe": "medium dark skin tone",
    "1f3ff": "dark skin tone",
}
GENDERS = {"2642": "man", "1f468": "man", "2640": "woman", "1f469": "woman"}
_DROPPED = {"fe0f", "2640", "2642", *SKIN_TONES}
_NEUTRAL = {"1f468": "1f9d1", "1f469": "1f9d1"}


def motion_key(codepoints: str) -> str:
    """Return the motion key of hex code points joined by `-`, for example `1f469-1f3fb-200d-1f373`."""
    kept = [point for point in codepoints.lower().split("-") if point not in _DROPPED]
    return "-".join(_NEUTRAL.get(point, point) for point in kept)


def is_test(key: str) -> bool:
    """Return whether a key is in the test split: one in ten, by its hash."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 10 == 0


def ungendered(key: str) -> str:
    """Return the key without a trailing joiner: the same for the neutral and the gendered form of a motion."""
    return key.removesuffix("-200d")


def assign_splits(keys: Iterable[str]) -> dict[str, Split]:
    """Return each key's split. `is_test` alone decides on test; train excludes other forms of test motions."""
    distinct = set(keys)
    tested = {ungendered(key) for key in distinct if is_test(key)}

    def split_of(key: str) -> Split:
        if is_test(key):
            return "test"
        return "held" if ungendered(key) in tested else "train"

    return {key: split_of(key) for key in distinct}


def skin_words(codepoints: str) -> list[str]:
    """Return the distinct skin tones of a sequence, as words, in order."""
    return list(dict.fromkeys(SKIN_TONES[p] for p in codepoints.lower().split("-") if p in SKIN_TONES))


def gender_words(codepoints: str) -> list[str]:
    """Return the distinct genders that a sequence spells out, as words, in order."""
    return list(dict.fromkeys(GENDERS[p] for p in codepoints.lower().split("-") if p in GENDERS))
