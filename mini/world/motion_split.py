"""Motion keys, and the splits train, validation and test: by motion, then by looks.

Variants of one motion (skin tones, genders) share a key, and a key is wholly in train or wholly in test. The key of a
gendered sequence keeps the joiner that stood before the gender sign (`1f3c3-200d`). The neutral form (`1f3c3`)
therefore has a key of its own, which is assigned independently. Where one of the two falls into test, the other is
`held`, in no split: otherwise `person running` could be trained on and `man running` tested. A test subject that looks
like one of the others is held as well.

Settings are chosen on validation: a tenth of what remains of train, without the subjects that look like one that stays
in train. Those stay too. So nothing moves between train and test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

Split = Literal["train", "validation", "test", "held"]
Twins = Callable[[Sequence[int], Sequence[int]], Iterable[int]]
"""Given indices of two groups of subjects: those of the first group that look like one of the second."""

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
    """Return whether a key is in the test split by motion: one in ten, by its hash."""
    return _tenth(key)


def is_validation(key: str) -> bool:
    """Return whether a key of the train split by motion is in validation: one in ten, both forms of a motion alike."""
    return _tenth(f"validation {ungendered(key)}")


def _tenth(text: str) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 10 == 0


def ungendered(key: str) -> str:
    """Return the key without a trailing joiner: the same for the neutral and the gendered form of a motion."""
    return key.removesuffix("-200d")


def assign_splits(keys: Iterable[str]) -> dict[str, Split]:
    """Return each key's split by motion: train, test or held. `is_test` alone decides on test."""
    distinct = set(keys)
    tested = {ungendered(key) for key in distinct if is_test(key)}

    def split_of(key: str) -> Split:
        if is_test(key):
            return "test"
        return "held" if ungendered(key) in tested else "train"

    return {key: split_of(key) for key in distinct}


def split_by_looks(keys: Sequence[str], twins: Twins) -> dict[str, Split]:
    """Return each key's split by motion and by looks.

    Args:
        keys: the motion key of each subject; variants of a motion share one.
        twins: which subjects look like others.
    """
    splits = assign_splits(keys)

    def members(wanted: Callable[[str], bool]) -> list[int]:
        return [index for index, key in enumerate(keys) if wanted(key)]

    def keys_of(indices: Iterable[int]) -> set[str]:
        return {keys[index] for index in indices}

    trained = members(lambda key: splits[key] == "train")
    leaked = keys_of(twins(members(lambda key: splits[key] == "test"), trained))
    validated = keys_of(index for index in trained if is_validation(keys[index]))
    joined = {key for key in keys_of(trained) if key not in validated}
    while joined:  # what looks like one that returns to train returns too
        near = keys_of(twins(members(validated.__contains__), members(joined.__contains__)))
        joined = {key for key in validated if ungendered(key) in set(map(ungendered, near))}
        validated -= joined
    held: dict[str, Split] = dict.fromkeys(leaked, "held")
    return {**splits, **held, **dict.fromkeys(validated, "validation")}


def skin_words(codepoints: str) -> list[str]:
    """Return the distinct skin tones of a sequence, as words, in order."""
    return list(dict.fromkeys(SKIN_TONES[p] for p in codepoints.lower().split("-") if p in SKIN_TONES))


def gender_words(codepoints: str) -> list[str]:
    """Return the distinct genders that a sequence spells out, as words, in order."""
    return list(dict.fromkeys(GENDERS[p] for p in codepoints.lower().split("-") if p in GENDERS))
