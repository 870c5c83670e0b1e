"""Motion keys and the split by motion (design: data, "The mini world").

Variants of one motion (skin tones, genders) share a key, and a key is wholly in train or wholly in test.
The key of a gendered sequence keeps the joiner that stood before the gender sign (`1f3c3-200d`), so the
neutral form (`1f3c3`) has a key, and a draw, of its own. Where one twin falls into test, the other one is
`held`: in neither split, so that nobody is trained as a person and tested as a man.
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
    """The motion key of hex code points joined by `-`, for example `1f469-1f3fb-200d-1f373`."""
    kept = [point for point in codepoints.lower().split("-") if point not in _DROPPED]
    return "-".join(_NEUTRAL.get(point, point) for point in kept)


def is_test(key: str) -> bool:
    """One key in ten, by its hash."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 10 == 0


def family(key: str) -> str:
    """The key without a trailing joiner: the same for the neutral and the gendered form of a motion."""
    return key.removesuffix("-200d")


def assign_splits(keys: Iterable[str]) -> dict[str, Split]:
    """Every key's split. Test is decided by `is_test` alone; train leaves out the twins of test keys."""
    distinct = set(keys)
    tested_families = {family(key) for key in distinct if is_test(key)}

    def split_of(key: str) -> Split:
        if is_test(key):
            return "test"
        return "held" if family(key) in tested_families else "train"

    return {key: split_of(key) for key in distinct}


def skin_words(codepoints: str) -> list[str]:
    """The distinct skin tones of a sequence, as words, in order."""
    return list(dict.fromkeys(SKIN_TONES[p] for p in codepoints.lower().split("-") if p in SKIN_TONES))


def gender_words(codepoints: str) -> list[str]:
    """The distinct genders that a sequence spells out, as words, in order."""
    return list(dict.fromkeys(GENDERS[p] for p in codepoints.lower().split("-") if p in GENDERS))
