"""The judges of gate figures: a classifier of subjects on known pictures, and rigid motion with the truth known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mini.evaluate import classifier, pictures, rigid, subjects, tsr
from mini.evaluate.evaluation_context import EvaluationContext
from mini.evaluate.mini_pipeline import blend
from mini.evaluate.protocol import backgrounds, frames, motion_clips, render_with_alpha, silhouettes
from mini.world.render import BASE_TIMES, CENTRE_INDEX, CENTRE_TIME, MOTIONS, Clip
from tests.mini.data_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("emoji"))


def test_the_same_subjects_are_drawn_and_none_is_unknown(world: Path) -> None:
    drawn = classifier.known_subjects(world, count=5)
    assert [one.key for one in drawn] == [one.key for one in classifier.known_subjects(world, count=5)]
    assert len({one.key for one in drawn}) == 5
    assert {entry.split for one in drawn for entry in one.variants} == {"train"}
    still, moving = subjects.prompts(drawn), subjects.prompts(drawn, moving=True)
    assert all(text.endswith(" on a white background") for text in (*still, *moving))
    assert moving[0] == still[0].replace(" on a", " moving left on a") and " moving right on a" in moving[1]


def test_blurred_pictures_keep_their_colours_alone() -> None:
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    blurred = classifier.blurred(pictures, 8)
    assert blurred.mean((1, 2, 3)).sub(pictures.mean((1, 2, 3))).abs().max() < 0.05
    assert blurred.diff(dim=-1).abs().mean() < 0.1 * pictures.diff(dim=-1).abs().mean()


def striped(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return pictures of three subjects that differ in their stripes alone: across, upright, diagonal."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    axis = torch.arange(128.0)
    waves = torch.stack([axis[:, None].expand(128, 128), axis.expand(128, 128), axis[:, None] + axis])
    phase = torch.rand(count, 1, 1, generator=generator) * 6
    stripes = torch.sin(waves[labels] * 0.7 + phase)[:, None]
    return stripes * torch.rand(count, 3, 1, 1, generator=generator), labels


def test_a_classifier_learns_shapes_and_does_not_know_them_blurred(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pictures_of(*_: object, seed: int, **__: object) -> tuple[Tensor, Tensor]:
        return striped(96, seed=seed)

    monkeypatch.setattr(classifier, "pictures_of", pictures_of)
    monkeypatch.setattr(classifier, "STEPS", 40)
    monkeypatch.setattr(classifier, "BATCH", 16)
    drawn = classifier.known_subjects(world, count=3)
    one = classifier.train_classifier(world, drawn)
    kept = classifier.get_classifier(world, drawn, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), kept.parameters(), strict=True))
    monkeypatch.setattr(classifier, "train_classifier", None)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            kept.parameters(), classifier.get_classifier(world, drawn, tmp_path).parameters(), strict=True
        )
    )
    pictures, labels = striped(60, seed=7)
    assert (one.recognise(pictures) == labels).float().mean() > 0.9
    assert (one.recognise(classifier.blurred(pictures)) == labels).float().mean() < 0.2


def test_the_truth_with_its_alpha_is_the_rendered_clip(world: Path) -> None:
    one = motion_clips(world, subjects=1, split="train", stills=True)[1].clip
    truth, alpha = render_with_alpha(world, one, BASE_TIMES)
    assert torch.equal(truth, frames(world, [one], BASE_TIMES)[0])
    assert torch.equal(alpha[CENTRE_INDEX], silhouettes(world, [one], CENTRE_TIME)[0])
    assert not one.emoji.animated


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_clip_at_a_trained_speed_fits_and_its_speed_is_found(world: Path, share: float) -> None:
    chosen = motion_clips(world, subjects=1, split="train", stills=True)
    real = [replace(one.clip, speed=_speed(one.clip, share)) for one in chosen]
    found = rigid.fit(world, chosen, frames(world, real, BASE_TIMES) + 1e-4)
    assert found.psnr.min() > 60
    assert found.place.tolist() == pytest.approx([share] * len(MOTIONS))


def _speed(clip: rigid.Clip, share: float) -> float:
    low, high = rigid.speeds(clip)[0], rigid.speeds(clip)[-1]
    return low + share * (high - low)


def test_what_does_not_move_or_moves_the_other_way_or_too_fast_is_a_miss(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rigid, "SPEEDS", 5)
    chosen = motion_clips(world, subjects=1, split="train", stills=True)
    true = frames(world, [one.clip for one in chosen], BASE_TIMES)
    wrong = {
        "still": true[:, CENTRE_INDEX : CENTRE_INDEX + 1].expand_as(true),
        "back": true.flip(1),
        "fast": frames(world, [replace(one.clip, speed=3 * one.clip.speed) for one in chosen], BASE_TIMES),
        "empty": backgrounds([one.clip for one in chosen])[:, None].expand_as(true),
    }
    for clips in wrong.values():
        assert rigid.fit(world, chosen, clips).psnr.max() < 25


class WithoutVAE:
    """A pipeline in which pictures are their own latents."""

    def encode(self, clips: Tensor) -> Tensor:
        return clips

    decode = encode


class Mover(WithoutVAE):
    """Its model moves everything as the truth does, at the clips' own speed."""

    def __init__(self, world: Path) -> None:
        self.world = world

    def sample_key_frames(self, model: object, centres: Tensor, captions: list[str], *_: object) -> Tensor:
        chosen = motion_clips(self.world, subjects=len(captions) // 6, split="train", stills=True)
        return frames(self.world, [one.clip for one in chosen], BASE_TIMES) + 1e-3


def test_the_section_reports_a_model_that_moves_as_asked(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rigid, "SUBJECTS", 2)
    monkeypatch.setattr(rigid, "SPEEDS", 3)
    evaluation = EvaluationContext(Path(), Path(), Path(), split="train", out_folder=tmp_path)
    evaluation.__dict__.update(emoji=world, pipeline=Mover(world), base=None)
    quality, speed = rigid.measure_rigid(evaluation)
    assert float(quality.value.split()[0]) > 40 and "repeated" in quality.reference
    assert speed.value.startswith("0.5")
    assert (tmp_path / "rigid.png").exists()


class Interpolator(WithoutVAE):
    """Its TSR gives the true frames, at one cell of 8 pixels a key frame, or the blend of the given ones."""

    def __init__(self, world: Path, *, blends: bool) -> None:
        chosen = motion_clips(world, subjects=2, split="train", stills=True)
        self.clips = [
            replace(one.clip, speed=0.21 if one.clip.motion in ("towards", "away") else 2 * 8 / 128)
            for one in chosen
        ]
        self.world, self.blends = world, blends

    def interpolate(self, model: object, keys: Tensor, *_: object, round_: int) -> Tensor:
        if self.blends:
            return blend(keys)
        times = tsr.ROUNDS[round_].times
        at = next(i for i, one in enumerate(self.clips) if torch.equal(self._true(one, times)[::4], keys[0]))
        return torch.stack([self._true(one, times) for one in self.clips[at : at + len(keys)]])

    def _true(self, clip: Clip, times: range) -> Tensor:
        return frames(self.world, [clip], times)[0]


def test_tsr_on_rigid_motion_is_compared_with_blending_where_the_object_is_or_was(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tsr, "SUBJECTS", 2)
    evaluation = EvaluationContext(Path(), Path(), Path(), split="train")
    for blends in (False, True):
        evaluation.__dict__.update(emoji=world, pipeline=Interpolator(world, blends=blends), tsr=None)
        for round_ in tsr.ROUNDS:
            gain = float(tsr._rigid_row(evaluation, round_).value.split()[0])
            assert gain == 0 if blends else gain > 20


class Keeper(WithoutVAE):
    """Its model repeats the centre frame, blurred by `edge` in all frames but that one."""

    def __init__(self, edge: int) -> None:
        self.edge = edge

    def sample_key_frames(self, model: object, centres: Tensor, captions: list[str], *_: object) -> Tensor:
        assert captions[:2] == ["a picture moving to the left", "a picture moving to the right"]
        clips = classifier.blurred(centres, self.edge)[:, None].repeat(1, len(BASE_TIMES), 1, 1, 1)
        clips[:, CENTRE_INDEX] = centres + 1e-2
        return clips


def test_the_section_of_pictures_tells_what_is_kept_from_what_is_smeared(tmp_path: Path) -> None:
    found = []
    for edge in (128, 24):
        evaluation = EvaluationContext(Path(), Path(), Path(), out_folder=tmp_path)
        evaluation.__dict__.update(pipeline=Keeper(edge), base=None)
        centre, sharp = pictures.measure_pictures(evaluation)
        assert centre.metric.startswith("20 drawings and photographs, six motions each")
        found.append(float(sharp.value.split()[0]))
    whole, smeared = found
    assert whole == pytest.approx(1, abs=0.02) and smeared < 0.7
    with Image.open(tmp_path / "pictures.png") as sheet:
        assert sheet.size == (13 * 132, 20 * 132), "a picture and two frames of each motion in a row"


def test_every_picture_has_a_source() -> None:
    listed = (pictures.FOLDER / "README.md").read_text(encoding="utf-8").split("|---|---|---|")[1]
    assert {path.stem for path in pictures.FOLDER.glob("*.??g")} <= set(re.findall(r"\w+", listed))
