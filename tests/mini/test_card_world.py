"""The mini world in one archive, and its pictures and captions as a device draws them, against the CPU's own."""

from __future__ import annotations

import colorsys
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from devtools.check import tiny
from microcinema_core.config import END_TOKEN, START_TOKEN
from microcinema_core.networks.vae import FoldedVAE
from mini.card.backgrounds import ORDER, Backgrounds, rgb_of
from mini.card.batches import RenderedBatches
from mini.card.draws import DeviceRandom
from mini.card.world import Drawn, World
from mini.world import archive
from mini.world.backgrounds import COLOURS, KINDS, Background
from mini.world.caption_bank import CaptionBank
from mini.world.captions import MOTION_PHRASES
from mini.world.emoji import read_catalogue
from mini.world.render import BASE_TIMES, CENTRE_INDEX, MOTIONS, Clip, render
from tests.mini.card_world import write_archive

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    with pytest.MonkeyPatch.context() as patch:
        write_archive(folder, patch)
    return folder


@pytest.fixture(scope="module")
def held(folder: Path) -> archive.Archive:
    return archive.read_archive(folder / "world.zip")


def draws(seed: int = 0) -> DeviceRandom:
    return DeviceRandom(torch.Generator(CPU).manual_seed(seed))


def test_an_archive_holds_every_fourth_frame_of_train_and_validation(
    folder: Path, held: archive.Archive
) -> None:
    wanted = [e for split in archive.SPLITS for e in read_catalogue(folder / "emoji", split)]
    assert [entry.id for entry in held.entries] == [emoji.id for emoji in wanted]
    start = 0
    for entry, emoji in zip(held.entries, wanted, strict=True):
        sprites = held.sprites[start : start + entry.stored][list(entry.order)]
        start += entry.stored
        frames = np.load(folder / "emoji" / "frames" / f"{emoji.id}.npy")[::4].transpose(0, 3, 1, 2)
        assert sprites.shape == frames.shape
        assert np.abs(sprites.numpy().astype(float) - frames).mean() < 3
    assert start == len(held.sprites)
    assert held.photos["train"].shape[1:] == (3, archive.PHOTO_SIDE, archive.PHOTO_SIDE)


def test_loops_that_are_no_multiple_of_four_are_sampled_evenly(folder: Path) -> None:
    loop = next(e for e in read_catalogue(folder / "emoji", "train") if e.animated and e.closes)
    odd = archive.sampled(replace(loop, loop_frames=39))
    assert odd == [0, 4, 8, 12, 16, 20, 23, 27, 31, 35]
    assert archive.sampled(replace(loop, frames=30, closes=False)) == [0, 4, 8, 12, 16, 20, 24, 28]


def test_equal_sprites_are_stored_once() -> None:
    frames = np.zeros((4, 8, 8, 4), np.uint8)
    frames[1], frames[3] = 50, 50
    assert archive.distinct(frames) == (0, 1, 0, 1)


def test_too_small_a_limit_and_a_broken_file_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="at the lowest quality, and --limit leaves"):
        monkeypatch.setattr("mini.world.caption_bank.make_bank", lambda *_, **__: {})
        archive.make(folder / "emoji", Path(), tmp_path / "w.zip", limit_mb=0.001)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match="is no archive of the mini world"):
        archive.read_archive(broken)
    with zipfile.ZipFile(broken, "w") as file:
        file.writestr(archive.INDEX, json.dumps({"format": 99, "size": 112}))
    with pytest.raises(ValueError, match="its format is 99"):
        archive.read_archive(broken)


@pytest.mark.parametrize("motion", [None, *MOTIONS])
def test_clips_are_those_of_the_renderer(folder: Path, held: archive.Archive, motion: str | None) -> None:
    """One subject, place and motion, drawn by the device's code and by `world.render`."""
    world = World(held, "train", "base", CPU)
    number = next(n for n, e in enumerate(held.entries) if len(e.order) > 1 and e.closes)
    emoji = {e.id: e for e in read_catalogue(folder / "emoji")}[held.entries[number].id]
    which = 0 if motion is None else 1 + MOTIONS.index(motion)  # type: ignore[arg-type]
    drawn = Drawn(
        *(torch.tensor([value]) for value in (number, 3, (0.45, 0.55), 0.6, which, 0.2)),
    )
    ground = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    made = world.frames(drawn, ground[None])
    clip = Clip(
        emoji,
        Background(ground, "photo"),
        12,
        (0.45, 0.55),
        0.6,
        motion,
        0.2 if motion else 0.0,
        motion is not None,
    )  # type: ignore[arg-type]
    assert (made - render(folder / "emoji", clip, BASE_TIMES)).abs().mean() < 0.02
    assert (made[0] - made[CENTRE_INDEX]).abs().mean() > 0.01


def test_captions_say_what_is_shown(folder: Path, held: archive.Archive) -> None:
    bank = CaptionBank.of(held.captions, CPU)
    subject = torch.zeros(4, dtype=torch.long)
    heads = torch.tensor([0, 1, 2, 3])
    tokens = bank.compose(subject, heads, torch.tensor([0, 3, 3, 0]), torch.tensor([0, 0, 1, 12]))
    texts = []
    for row, length in zip(tokens.tolist(), bank.head_lengths[0, :4].tolist(), strict=True):
        assert row[0] == START_TOKEN and len(row) == 77
        end = row.index(END_TOKEN)
        assert set(row[end:]) == {END_TOKEN}
        texts.append("".join(map(chr, row[1 + length : end])).lstrip(","))
    right = MOTION_PHRASES["right"][0].replace(" ", "")
    assert texts[0] == "" and texts[1] == right and texts[2].replace(",", "") == right + "onawhitebackground"
    assert texts[3] == "onagradientbackground"
    assert bank.empty.tolist() == [START_TOKEN, *[END_TOKEN] * 76]


def test_shares_are_those_of_the_sampler(held: archive.Archive) -> None:
    world, random = World(held, "train", "base", CPU), draws()
    drawn = world.draw(4000, random)
    stills = world.length[drawn.subjects] == 1
    assert float((drawn.motion > 0).float().mean()) == pytest.approx(0.35, abs=0.03)
    assert stills.any() and (drawn.motion[stills] > 0).all()
    middle = (drawn.centre == 0.5).all(1) & (drawn.side == 0.875)
    assert float(middle.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert {held.entries[n].split for n in drawn.subjects.unique().tolist()} == {"train"}
    zoom = drawn.motion >= 5
    for moved, speed in ((zoom, 0.21), ((drawn.motion > 0) & ~zoom, 0.125)):
        assert moved.any() and drawn.speed[moved].tolist() == pytest.approx([speed] * int(moved.sum()))
    named = World(held, "train", "image", CPU).draw(4000, random)
    assert float((named.motion > 0).float().mean()) == pytest.approx(0.4, abs=0.03) and not named.speed.any()
    assert (drawn.phase < world.length[drawn.subjects]).all() and drawn.side.min() >= 0.55
    frames = world.frames(
        Drawn(*(getattr(drawn, f)[:2] for f in Drawn.__annotations__)), torch.zeros(2, 3, 128, 128)
    )
    assert frames.shape == (18, 3, 128, 128) and frames.min() >= -1 and frames.max() <= 1


def test_hue_saturation_and_value_are_colorsys() -> None:
    hsv = torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
    wanted = torch.tensor([colorsys.hsv_to_rgb(*row) for row in hsv.tolist()])
    torch.testing.assert_close(rgb_of(hsv), wanted, atol=1e-5, rtol=0)
    negative = torch.tensor([[-0.02, 0.8, 0.9]])
    torch.testing.assert_close(rgb_of(negative)[0], torch.tensor(colorsys.hsv_to_rgb(0.98, 0.8, 0.9)))


def test_backgrounds_are_of_the_kinds_that_they_say(held: archive.Archive) -> None:
    source = Backgrounds(held.photos["train"], 32, KINDS)
    pixels, kind, colour = source.draw(600, draws())
    assert pixels.shape == (600, 3, 32, 32) and pixels.min() >= 0 and pixels.max() <= 1
    shares = torch.bincount(kind, minlength=4) / 600
    torch.testing.assert_close(shares, torch.tensor([KINDS[k] for k in ORDER]), atol=0.06, rtol=0)
    detail = pixels.diff(dim=-1).abs().mean((1, 2, 3))
    means = [float(detail[kind == number].mean()) for number in range(4)]
    assert means[0] == 0 < means[1] and means[3] < means[2]
    white = pixels[(kind == 0) & (colour == list(COLOURS).index("white"))]
    assert white.min() > 0.85


def test_a_batch_is_latents_and_one_caption_each(held: archive.Archive) -> None:
    vae = FoldedVAE(tiny.VAE)
    for role, frames in (("image", 1), ("base", 9)):
        batches = RenderedBatches(World(held, "train", role, CPU), vae, 3, draws(), torch.float32)
        batch = batches.next()
        assert batch["mean"].shape == batch["std"].shape == (3, frames, 8, 16, 16)
        assert batch["tokens"].shape == (3, 1, 77) and batches.position == 3
        other = RenderedBatches(World(held, "train", role, CPU), vae, 3, draws(), torch.float32).next()
        assert all(torch.equal(batch[key], other[key]) for key in batch), "the same seed gives the same batch"
