"""The docs' pictures: layout, sizes, files, and that every picture makes the files that it declares."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from devtools.release.curves import plot, smooth
from devtools.release.files import QUALITIES, write_picture
from devtools.release.pictures.__main__ import PICTURES, TEXT, graph_of, named, produce
from devtools.release.pictures.inputs import OUTSIDE, moving_prompts, own_pictures, typical_prompts
from devtools.release.pictures.layout import (
    GAP,
    animation,
    as_tensor,
    evenly_spaced,
    labelled,
    rows,
    side_by_side,
    still,
)
from devtools.run import edit
from devtools.run.home import ROOT, Problem
from devtools.run.prompt_words import read_caption_words, split_words
from mini.evaluate.mini_pipeline import blend
from mini.world.captions import MOTION_PHRASES
from tests.mini.data_world import write_world


def noise(frames: int, side: int = 64) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(frames)]


def test_evenly_goes_from_the_first_to_the_last() -> None:
    assert evenly_spaced(range(129), 9) == list(range(0, 129, 16))
    assert evenly_spaced("ab", 3) == ["a", "a", "b"]


def test_a_still_has_a_row_for_each_set_of_clips() -> None:
    real, made = torch.full((2, 9, 3, 8, 8), -1.0), torch.full((2, 9, 3, 8, 8), 1.0)
    tiles = rows(real, made)
    assert tiles.shape == (2, 3, 16, 72)
    assert (tiles[:, :, :8] == -1).all()
    assert (tiles[:, :, 8:] == 1).all()
    assert still(tiles, columns=1).size == (72 + 2 * GAP, 2 * (16 + 2 * GAP))


def test_an_animation_has_a_pair_for_each_clip() -> None:
    clips = torch.linspace(-1, 1, 5)[None, :, None, None, None].expand(3, 5, 3, 8, 8)
    frames = animation(side_by_side(clips, -clips), columns=2)
    assert len(frames) == 5
    assert {frame.size for frame in frames} == {(2 * (16 + 2 * GAP), 2 * (8 + 2 * GAP))}
    assert frames[0].getpixel((GAP, GAP)) == (0, 0, 0)
    assert frames[0].getpixel((GAP + 8, GAP)) == (255, 255, 255)


def test_pictures_become_tensors_and_are_labelled() -> None:
    white = Image.new("RGB", (128, 128), "white")
    assert (as_tensor([white, white]) == torch.ones(2, 3, 128, 128)).all()
    page = as_tensor(
        [labelled(white, "a flag of south georgia south sandwich islands on a green background")]
    )
    assert page.shape[2] > 128
    assert (page[:, :, :128] == 1).all()
    assert (page[:, :, 128:] < 0).any()


def test_animations_loop_at_their_rate(tmp_path: Path) -> None:
    path = tmp_path / "clip.webp"
    assert write_picture(path, noise(5), limit=1000, fps=8) == path.stat().st_size
    with Image.open(path) as image:
        image.load()
        assert (image.n_frames, image.info["loop"], image.info["duration"]) == (5, 0, 125)
    assert [file.name for file in tmp_path.iterdir()] == ["clip.webp"]


def test_an_animation_holds_the_graph_that_it_restores(tmp_path: Path) -> None:
    """In EXIF, as the front end reads it; those that ship hold one too."""
    write_picture(tmp_path / "clip.webp", noise(5), limit=1000, fps=8, graph=graph_of(TEXT))
    shipped = [ROOT / file.path for picture in PICTURES for file in picture.files if file.workflow]
    assert {path.name for path in shipped} == {"readme.webp", "cascade.webp", "own_pictures.webp"}
    for path in (tmp_path / "clip.webp", *shipped):
        with Image.open(path) as image:
            kind, _, graph = image.getexif()[0x010F].partition(":")
        assert kind == "workflow"
        assert "MicroCinemaSampler" in {node["type"] for node in json.loads(graph)["nodes"]}


@pytest.mark.parametrize(("name", "fps"), [("picture.jpg", 0), ("clip.webp", 8)])
def test_quality_gives_way_to_the_limit(name: str, fps: float, tmp_path: Path) -> None:
    best = write_picture(tmp_path / name, noise(3), limit=1000, fps=fps)
    limit = 0.6 * best / 1000
    assert write_picture(tmp_path / name, noise(3), limit=limit, fps=fps) <= 1000 * limit
    with pytest.raises(Problem, match="lowest quality"):
        write_picture(tmp_path / "absent.jpg", noise(1), limit=0.1)
    assert not (tmp_path / "absent.jpg").exists()
    assert list(QUALITIES) == sorted(QUALITIES, reverse=True)


def test_the_table_names_and_declares_everything_once() -> None:
    files = [file for picture in PICTURES for file in picture.files]
    assert len({picture.name for picture in PICTURES}) == len(PICTURES)
    assert len({Path(file.path).name for file in files}) == len(files)
    assert all(file.limit < 1500 and (ROOT / file.path).parent.is_dir() for file in files)
    assert sum(file.limit for file in files if file.path.startswith("docs/")) < 6000
    assert all(file.path.endswith(".webp" if file.fps else ".jpg") for file in files)
    assert [picture.name for picture in named(["cascade", "base_test"])] == ["base_test", "cascade"]
    with pytest.raises(Problem, match="no picture film: expected one of base_test"):
        named(["film"])


class MiniPipeline:
    """A stand-in: pictures are latents, interpolated frames are blends."""

    def encode(self, clips: Tensor) -> Tensor:
        return clips

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def sample_key_frames(
        self, model: object, centres: Tensor, captions: list[str], settings: object
    ) -> Tensor:
        assert len(captions) == len(centres)
        return centres[:, None].expand(-1, 9, -1, -1, -1)

    def interpolate(self, model: object, keys: Tensor, captions: list[str], settings: object) -> Tensor:
        return blend(keys)


class Studio:
    """A stand-in: grey pictures with the sizes of the real ones."""

    def __init__(self, emoji: Path) -> None:
        settings = dict.fromkeys(("base", "tsr", "base_settings", "tsr_settings"))
        self.context = SimpleNamespace(emoji=emoji, pipeline=MiniPipeline(), **settings)

    def video(self, *, rounds: int = 1, upscale: bool = False, **_: object) -> list[Image.Image]:
        side = 512 if upscale else 128
        return [Image.new("RGB", (side, side), (shade, 90, 90)) for shade in range(8 * 4**rounds + 1)]

    def centre_frame(self, prompt: str, seed: int) -> Image.Image:
        return Image.new("RGB", (128, 128), (seed, seed, seed))

    def thumbnail(self, name: str) -> Image.Image:
        return Image.new("RGB", (384, 384))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Studio(write_world(tmp_path_factory.mktemp("data") / "emoji"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_every_picture_makes_the_files_that_it_declares(picture: Any, studio: Any, tmp_path: Path) -> None:
    produce(picture, studio, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {Path(file.path).name for file in picture.files}


def test_what_is_asked_is_in_the_vocabulary_or_wholly_outside(tmp_path: Path) -> None:
    words = read_caption_words()
    demo = json.loads(
        (ROOT / "workflows" / "api" / "11 Text to video (mini).json").read_text(encoding="utf-8")
    )
    for text in [edit.get_text(demo), *(text for text, _ in own_pictures())]:
        assert not split_words(text, words)[1], text
    for text in OUTSIDE:
        assert not split_words(text, words)[0], text
    prompts = typical_prompts(write_world(tmp_path / "emoji"))
    assert len(prompts) == 12
    assert prompts[0].endswith("on a white background")
    moving = moving_prompts(tmp_path / "emoji")
    assert len(set(moving)) == len(moving)
    assert all(phrases[-1] in text for phrases, text in zip(MOTION_PHRASES.values(), moving, strict=False))
    assert all(picture.mode == "RGB" for _, picture in own_pictures())


def test_curves_have_axes_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    for run in ("one", "two"):
        lines = [
            {"step": 20 * i, "seconds": 60.0 * i, "loss": 1 / i, "loss/band0": 0.5 / i} for i in (1, 2, 3)
        ]
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "stats.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    plot(["one"], tmp_path / "one.png")
    plot(["one", "two"], tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.width == 2 * one.width and two.height == one.height
    with pytest.raises(Problem, match="three is not a run"):
        plot(["three"], tmp_path / "three.png")
    (tmp_path / "runs" / "one" / "stats.jsonl").write_text("")
    with pytest.raises(Problem, match="one has no losses yet"):
        plot(["one"], tmp_path / "one.png")
    assert smooth([0.0, 3.0, 0.0]) == [1.5, 1.0, 1.5]
