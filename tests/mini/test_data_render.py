"""Rendering the mini world: placement, times, motion, captions, samples, backgrounds."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mini.world.backgrounds import KINDS, Background, random_background
from mini.world.captions import MOTION_PHRASES, caption_words, make_captions, with_article, words_of
from mini.world.clips import ClipSampler
from mini.world.compose import over, place
from mini.world.emoji import read_catalogue
from mini.world.pictures import PixelDataset
from mini.world.render import BASE_TIMES, CENTRE_TIME, MOTIONS, Clip, render
from tests.mini import data_world

BLACK = Background(torch.zeros(3, 128, 128), "flat", "black")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_world.write_world(tmp_path_factory.mktemp("world") / "emoji")


def shown_index(frame: torch.Tensor) -> float:
    """Return which frame of the animation a rendered frame shows, from its brightest part."""
    return float(((frame.max() + 1) * 127.5 - data_world.frame_level(0)) / 5)


def centre_of_mass(frame: torch.Tensor) -> tuple[float, float, float]:
    """Return x, y and area of what is not background."""
    mask = (frame.mean(0) > -0.9).float()
    axis = torch.arange(128) + 0.5
    area = mask.sum()
    return float((mask.sum(0) * axis).sum() / area), float((mask.sum(1) * axis).sum() / area), float(area)


def test_placing_at_full_size_is_the_identity() -> None:
    sprite = torch.rand(2, 4, 64, 64)
    sprite[:, :3] *= sprite[:, 3:]
    placed = place(sprite, torch.tensor([[0.5, 0.5]]), torch.tensor([1.0]), size=64)
    torch.testing.assert_close(placed, sprite, atol=2e-6, rtol=0)


@pytest.mark.parametrize("side", [0.4, 0.61, 1.0])
def test_placing_keeps_area_and_centre(side: float) -> None:
    sprite = torch.zeros(1, 4, 112, 112)
    sprite[:, 3, 28:84, 28:84] = 1
    alpha = place(sprite, torch.tensor([[0.47, 0.55]]), torch.tensor([side]), size=128)[0, 3]
    assert float(alpha.sum()) == pytest.approx((side * 64) ** 2, rel=0.01)
    axis = (torch.arange(128) + 0.5) / 128
    assert float((alpha.sum(0) * axis).sum() / alpha.sum()) == pytest.approx(0.47, abs=1e-3)
    assert float((alpha.sum(1) * axis).sum() / alpha.sum()) == pytest.approx(0.55, abs=1e-3)


def test_transparent_edges_show_no_fringe() -> None:
    sprite = torch.zeros(1, 4, 112, 112)
    sprite[:, :, 28:84, 28:84] = 1
    white = torch.ones(3, 128, 128)
    frame = over(place(sprite, torch.tensor([[0.5, 0.5]]), torch.tensor([0.63]), size=128), white)
    torch.testing.assert_close(frame, torch.ones(1, 3, 128, 128))


@pytest.mark.parametrize("times", [BASE_TIMES, range(16, 33, 4), range(100, 105)])
def test_strides_land_on_true_frames(world: Path, times: range | tuple[int, ...]) -> None:
    clip = Clip(read_catalogue(world)[0], BLACK, phase=7)
    frames = render(world, clip, times)
    assert frames.shape == (len(times), 3, 128, 128) and frames.dtype == torch.float32
    expected = [(7 + time) % data_world.FRAMES for time in times]
    assert [round(shown_index(frame)) for frame in frames] == expected
    assert max(abs(shown_index(f) - e) for f, e in zip(frames, expected, strict=True)) < 0.02


def test_a_frame_is_the_same_alone_and_among_others(world: Path) -> None:
    rng = np.random.default_rng(1)
    clip = Clip(
        read_catalogue(world)[0], random_background(rng, size=128), 3, (0.4, 0.6), 0.7, "towards", 0.2
    )
    together = render(world, clip, BASE_TIMES)
    torch.testing.assert_close(together, render(world, clip, BASE_TIMES), atol=0, rtol=0)
    for index in (0, 4, 8):
        torch.testing.assert_close(
            render(world, clip, [BASE_TIMES[index]])[0], together[index], atol=2e-6, rtol=0
        )


def test_a_clip_that_does_not_loop_is_never_wrapped(world: Path) -> None:
    stuck = next(e for e in read_catalogue(world) if not e.closes)
    with pytest.raises(ValueError, match="does not loop"):
        render(world, Clip(stuck, BLACK), BASE_TIMES)
    assert render(world, Clip(stuck, BLACK, phase=-60), range(64, 69)).shape[0] == 5
    base = ClipSampler(world, stuck.split, "base")
    assert all(base[index].clip.emoji.closes for index in range(150))
    tsr = ClipSampler(world, stuck.split, "tsr")
    unlooped = [sample for sample in map(tsr.__getitem__, range(150)) if not sample.clip.emoji.closes]
    assert unlooped and all(sample.clip.loop_indices(sample.times) for sample in unlooped)


def test_the_centre_frame_tells_nothing_about_the_motion(world: Path) -> None:
    clip = Clip(read_catalogue(world)[0], BLACK, phase=5, centre=(0.45, 0.55), side=0.7)
    still = render(world, clip, [CENTRE_TIME])
    for motion in MOTIONS:
        moved = dataclasses.replace(clip, motion=motion, speed=0.2)
        torch.testing.assert_close(render(world, moved, [CENTRE_TIME]), still, atol=0, rtol=0)


def test_motions_go_where_they_say(world: Path) -> None:
    clip = Clip(read_catalogue(world)[0], BLACK, side=0.5)
    ends = {}
    for motion in MOTIONS:
        first, last = render(world, dataclasses.replace(clip, motion=motion, speed=0.1), [32, 96])
        before, after = centre_of_mass(first), centre_of_mass(last)
        ends[motion] = tuple(b - a for a, b in zip(before, after, strict=True))
    step = 0.1 * 2 * 128
    assert ends["left"][0] == pytest.approx(-step, abs=1) and ends["right"][0] == pytest.approx(step, abs=1)
    assert ends["up"][1] == pytest.approx(-step, abs=1) and ends["down"][1] == pytest.approx(step, abs=1)
    assert ends["towards"][2] > 200 and ends["away"][2] < -200


def test_directions_are_equally_likely_and_placed_alike(world: Path) -> None:
    sampler = ClipSampler(world, "train", "base")
    samples = [sampler[index] for index in range(900)]
    counts = collections.Counter(sample.clip.motion for sample in samples)
    moved = sum(counts[motion] for motion in MOTIONS)
    assert 0.38 < moved / 900 < 0.52
    assert all(0.11 < counts[motion] / moved < 0.23 for motion in MOTIONS)
    for motion in (None, *MOTIONS):
        clips = [sample.clip for sample in samples if sample.clip.motion == motion]
        assert np.mean([clip.centre for clip in clips], axis=0) == pytest.approx([0.5, 0.5], abs=0.06)
        assert np.mean([clip.side for clip in clips]) == pytest.approx(0.775, abs=0.05)


def test_how_many_are_moved_is_a_choice(world: Path) -> None:
    still = ClipSampler(world, "train", "base", moved=0.0)
    clips = [still[index].clip for index in range(300)]
    assert all(clip.emoji.animated == (clip.motion is None) for clip in clips)
    assert 0.04 < sum(clip.motion is not None for clip in clips) / 300 < 0.17


def test_a_rigid_motion_shifts_the_centre_frame_by_whole_latent_cells(world: Path) -> None:
    sampler = ClipSampler(world, "train", "base", moved=0.5, rigid=True)
    clips = [sampler[index].clip for index in range(200)]
    moved = [clip for clip in clips if clip.motion is not None]
    assert 0.5 < len(moved) / 200 < 0.7 and {clip.motion for clip in moved} == set(MOTIONS)
    assert any(clip.emoji.animated for clip in moved) and any(not clip.emoji.animated for clip in moved)
    assert all(clip.frozen == (clip.motion is not None) for clip in clips)
    assert 0.35 < np.mean([clip.centre == (0.5, 0.5) and clip.side == 0.875 for clip in clips]) < 0.65
    left = dataclasses.replace(
        next(c for c in moved if c.motion == "left"), background=BLACK, centre=(0.5, 0.5)
    )
    frames = render(world, left, BASE_TIMES)
    for index, frame in enumerate(frames):
        cells = index - 4
        kept = slice(32, 96)  # what is in the picture in every frame
        source = slice(32 + 8 * cells, 96 + 8 * cells)
        torch.testing.assert_close(frame[:, :, kept], frames[4][:, :, source], atol=1e-5, rtol=0)


def test_captions_of_pictures_may_name_a_motion_and_nothing_else_changes(world: Path) -> None:
    plain = ClipSampler(world, "train", "image")
    named = ClipSampler(world, "train", "image", named=0.4)
    phrases = [phrase for of_one in MOTION_PHRASES.values() for phrase in of_one]
    told = 0
    for index in range(200):
        before, after = plain[index], named[index]
        told += all(any(phrase in caption for phrase in phrases) for caption in after.captions)
        assert after.clip.motion is None and before.clip.phase == after.clip.phase
        assert not any(phrase in caption for caption in before.captions for phrase in phrases)
    assert 0.3 < told / 200 < 0.5


def test_samples_depend_on_seed_and_index_alone(world: Path) -> None:
    one, two, other = (ClipSampler(world, "train", "tsr", seed=seed) for seed in (0, 0, 1))
    assert one[5].recipe() == two[5].recipe() != other[5].recipe()
    assert one[4].fps == 8.0 and one[5].fps == 32.0
    assert np.diff(one[4].times).tolist() == [4] * 4 and np.diff(one[5].times).tolist() == [1] * 4
    torch.testing.assert_close(one[5].clip.background.pixels, two[5].clip.background.pixels)


def test_splits_do_not_mix(world: Path) -> None:
    splits = ("train", "validation", "test")
    keys = {split: set(ClipSampler(world, split, "base").motion_keys) for split in splits}
    assert len(set().union(*keys.values())) == sum(map(len, keys.values()))
    with pytest.raises(ValueError, match="expected one of train"):
        read_catalogue(world, "valid")


def test_captions_say_the_motion_and_stay_in_the_vocabulary(world: Path) -> None:
    entries = read_catalogue(world, "train")
    known, rng = set(caption_words(entries)), np.random.default_rng(0)
    for emoji in entries[:6] + entries[-1:]:
        for motion in (None, *MOTIONS):
            for caption in make_captions(emoji, rng, count=8, motion=motion, colour="blue"):
                assert set(words_of(caption)) <= known and not set(caption) & set("()[]:\\")
                said = {m for m, phrases in MOTION_PHRASES.items() if any(p in caption for p in phrases)}
                assert said == ({motion} if motion else set())
    texts = " | ".join(make_captions(entries[-1], rng, count=40, colour="orange"))
    assert "on an orange background" in texts and "left" not in texts
    assert with_article("owl") == "an owl" and with_article("chains") == "chains"


def test_skin_and_gender_are_said(world: Path) -> None:
    runner = next(emoji for emoji in read_catalogue(world) if emoji.skin)
    captions = make_captions(runner, np.random.default_rng(0), count=30)
    assert any("light skin tone" in caption for caption in captions)
    assert any(caption.startswith("a man thing") for caption in captions)


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_are_deterministic_and_in_range(world: Path, split: str) -> None:
    pytest.importorskip("skimage")
    pictures, again = PixelDataset(world, split), PixelDataset(world, split)
    for index in range(12):
        picture = pictures[index]
        assert picture.shape == (3, 128, 128) and picture.dtype == torch.float32
        assert float(picture.min()) >= -1 and float(picture.max()) <= 1
        torch.testing.assert_close(picture, again[index], atol=0, rtol=0)
    with pytest.raises(IndexError):
        pictures[len(pictures)]


def test_backgrounds_of_every_kind() -> None:
    pytest.importorskip("skimage")
    rng = np.random.default_rng(0)
    found = {
        background.kind: background for background in (random_background(rng, size=128) for _ in range(60))
    }
    assert set(found) == set(KINDS)
    for background in found.values():
        assert background.pixels.shape == (3, 128, 128)
        assert float(background.pixels.min()) >= 0 and float(background.pixels.max()) <= 1
        assert (background.colour is not None) == (background.kind == "flat")
