"""Looks: distances against a plain loop, and that no subject of train looks like one of validation or test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mini.world import emoji, looks, packages
from mini.world.emoji import SIZE
from mini.world.motion_split import (
    assign_splits,
    is_test,
    is_validation,
    motion_key,
    split_by_looks,
    ungendered,
)


def art(seed: int, frames: int = 1, *, patch: int = 0) -> np.ndarray:
    """Return an animation of a coloured, moving square; `patch` pixels of its edge are black."""
    rng = np.random.default_rng(seed)
    colour, (x, y) = rng.integers(60, 255, 3), rng.integers(4, 40, 2)
    pictures = np.zeros((frames, SIZE, SIZE, 4), dtype=np.uint8)
    for index, frame in enumerate(pictures):
        left = x + 3 * index
        frame[y : y + 60, left : left + 60] = (*colour, 255)
        frame[y : y + patch, left : left + patch, :3] = 0
    return pictures


def plain_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The distance of two subjects, pixel blocks and frames one by one."""

    def small(frames: np.ndarray) -> list[np.ndarray]:
        picked = [frames[round(k * (len(frames) - 1) / 7)] / 255 for k in range(8)]
        step = SIZE // 16
        blocks = itertools.product(range(16), range(16))
        return [
            np.array(
                [f[step * r : step * r + step, step * c : step * c + step].mean((0, 1)) for r, c in blocks_]
            )
            for f, blocks_ in zip(picked, itertools.tee(blocks, 8), strict=True)
        ]

    a, b = small(one), small(other)
    table = np.array(
        [[((p - q) ** 2).mean() / max(p[:, 3].mean(), q[:, 3].mean()) for q in b] for p in a]
    ) ** 0.5  # fmt: skip
    return float(min(table.min(1).mean(), table.min(0).mean()))


def test_distances_are_those_of_a_plain_loop() -> None:
    subjects = [art(0), art(1, 3), art(0, 9), art(2, 8, patch=9)]
    found = looks.distances(looks.Looks.of(subjects), looks.Looks.of(subjects))
    for i, j in itertools.product(range(4), repeat=2):
        assert float(found[i, j]) == pytest.approx(plain_distance(subjects[i], subjects[j]), abs=2e-3)


def test_alike_are_the_same_art_a_frame_of_it_and_a_changed_detail() -> None:
    first, other = (
        looks.Looks.of([art(0, 9)]),
        looks.Looks.of([art(0), art(0, 9, patch=8), art(1), art(2, 9)]),
    )
    assert looks.alike(first, other)[0].tolist() == [True, True, False, False]


KEYS = [f"{n:x}{suffix}" for n in range(0x1F300, 0x1F400) for suffix in ("", "-200d")]


def by_family(size: int) -> tuple[dict[int, int], object]:
    """Return looks in which a fourth of the subjects come in families of `size`, and the function that finds twins."""
    places = [(index * 7919) % len(KEYS) for index in range(len(KEYS))]
    family = {index: place // size if place < len(KEYS) / 4 else -place for index, place in enumerate(places)}

    def twins(some: Sequence[int], others: Sequence[int]) -> list[int]:
        there = {family[index] for index in others}
        return [index for index in some if family[index] in there]

    return family, twins


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_subject_of_train_looks_like_one_that_is_held_out(size: int) -> None:
    family, twins = by_family(size)
    splits, by_motion = split_by_looks(KEYS, twins), assign_splits(KEYS)
    for one, other in itertools.combinations(range(len(KEYS)), 2):
        kinds = {splits[KEYS[one]], splits[KEYS[other]]}
        if family[one] == family[other] or ungendered(KEYS[one]) == ungendered(KEYS[other]):
            assert kinds not in ({"train", "test"}, {"train", "validation"}, {"test", "validation"})
    moves = {(by_motion[key], splits[key]) for key in KEYS}
    assert moves <= {
        ("train", "train"), ("train", "validation"), ("test", "test"), ("test", "held"), ("held", "held"),
    }  # fmt: skip
    assert {"train", "validation", "test"} <= set(splits.values())
    if size == 1:
        assert {key for key in KEYS if splits[key] == "test"} == {key for key in KEYS if is_test(key)}


def test_the_catalogue_holds_a_test_subject_that_train_shows_too(tmp_path: Path) -> None:
    """One test subject is also filed under the code points of a train subject; the other is like none."""
    codes = [f"1f4{n:02x}" for n in range(64)]
    tests = [code for code in codes if is_test(motion_key(code))][:2]
    trained = [c for c in codes if not is_test(motion_key(c)) and not is_validation(motion_key(c))][:3]
    (tmp_path / "frames").mkdir()
    for number, code in enumerate([*trained, *tests]):
        np.save(tmp_path / "frames" / f"{code}.npy", art(0 if code == tests[0] else number, 4))
    measured = {c: emoji.measure_loop(emoji.open_frames(tmp_path, c)) for c in (*trained, *tests)}
    words = {packages.lookup_key(code): packages.EmojiWords(f"thing {code}", ()) for code in measured}
    emoji.write_catalogue(tmp_path, measured, words)
    lines = map(json.loads, (tmp_path / "catalogue.jsonl").read_text().splitlines())
    splits = {line["id"]: line["split"] for line in lines}
    assert splits == {**dict.fromkeys(trained, "train"), tests[0]: "held", tests[1]: "test"}
