"""The evaluated clips, the shipped workflows' sampler settings, and result rows of models with known results."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from devtools.run.home import ROOT
from microcinema_core.data.videos.sources import scan
from microcinema_core.diffusion.tsr import FACTOR, WINDOW, round_noise
from microcinema_core.metrics.protocol.prompts import read_prompts
from microcinema_core.metrics.protocol.sample import to_bytes
from mini.evaluate import base as keyframes
from mini.evaluate import videos
from mini.evaluate.evaluation_context import BASE, TSR, EvaluationContext
from mini.evaluate.mini_pipeline import DDIMSettings, MiniPipeline, slices
from mini.evaluate.protocol import evaluation_clips, frames, motion_clips, silhouettes
from mini.world.motion_split import is_test
from mini.world.render import BASE_TIMES, CENTRE_INDEX, CENTRE_TIME, MOTIONS
from tests.mini.data_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("emoji"))


def test_cases_are_of_unseen_motions_and_always_the_same(world: Path) -> None:
    chosen = evaluation_clips(world, clips_per_key=4)
    assert chosen and all(is_test(case.key) for case in chosen)
    assert set(Counter(case.key for case in chosen).values()) == {4}
    again = evaluation_clips(world, clips_per_key=4)
    assert [(c.clip.phase, c.clip.centre, c.caption) for c in chosen] == [
        (c.clip.phase, c.clip.centre, c.caption) for c in again
    ]
    assert all(c.ceiling.phase != c.clip.phase and c.ceiling.centre == c.clip.centre for c in chosen)


SETTINGS: dict[str, DDIMSettings] = {"MicroCinemaSampler": BASE, "MicroCinemaTSR": TSR}
WORKFLOWS = [
    file
    for file in sorted((ROOT / "workflows" / "api").glob("*.json"))
    if '"mini_tsr.' in file.read_text(encoding="utf-8")
]
"""The workflows with the mini models; the others need a Stable Diffusion of the user's own."""


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_the_shipped_workflows_ask_as_the_table_does(file: Path) -> None:
    nodes = [node for node in json.loads(file.read_text()).values() if node["class_type"] in SETTINGS]
    given = {"MicroCinemaSampler"} if file.stem == "14 Between two pictures (mini)" else set()
    assert {node["class_type"] for node in nodes} == set(SETTINGS) - given
    for node in nodes:
        given, asked = node["inputs"], SETTINGS[node["class_type"]]
        assert (given["sampler_name"], given["scheduler"]) == ("ddim", "normal"), "what the core samples with"
        assert (given["steps"], given["cfg"]) == (asked.steps, asked.guidance_scale)
        assert given["gamma"] == asked.gamma


def test_the_shipped_subgraphs_ask_as_the_table_does() -> None:
    seen = set()
    for file in sorted((ROOT / "subgraphs").glob("*.json")):
        text = file.read_text(encoding="utf-8")
        (definition,) = json.loads(text)["definitions"]["subgraphs"]
        for node in definition["nodes"]:
            if settings := SETTINGS.get(node["type"]):
                values = node["widgets_values"]
                if "ddim" not in values:
                    assert "mini_" not in text, "a blueprint with the mini models"
                    continue
                first = values.index("ddim") - 2
                wanted = [settings.steps, settings.guidance_scale, "ddim", "normal", -1.0, settings.gamma]
                assert values[first : first + 6] == wanted
                seen.add(node["type"])
    assert seen == set(SETTINGS)


@pytest.mark.parametrize("node", ["MicroCinemaNoisePrior", "MicroCinemaSampler"])
def test_help_names_the_tables_gamma(node: str) -> None:
    text = (ROOT / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8")
    assert f"the mini base model recommends {BASE.gamma:g}." in text


def test_all_directions_are_asked_of_one_centre_frame(world: Path) -> None:
    asked = motion_clips(world, subjects=3)
    assert [one.clip.motion for one in asked] == [*MOTIONS] * 3
    for start in range(0, len(asked), 6):
        pictures = frames(world, [one.clip for one in asked[start : start + 6]], [CENTRE_TIME])
        assert torch.equal(pictures, pictures[:1].expand_as(pictures))


def test_the_silhouette_is_where_the_object_is(world: Path) -> None:
    clip = evaluation_clips(world, clips_per_key=1)[0].clip
    alpha = silhouettes(world, [clip], CENTRE_TIME)[0]
    picture = frames(world, [clip], [CENTRE_TIME])[0, 0]
    differs = (picture - (clip.background.pixels * 2 - 1)).abs().mean(0) > 0.05
    assert not (differs & (alpha < 0.01)).any() and (alpha > 0.9).any()


class FakePipeline:
    """A VAE that loses a little contrast, and a model that samples the real clips or repeats the centre frame."""

    def __init__(self, world: Path, moves: bool) -> None:
        self.world, self.moves = world, moves
        self.clips = iter(evaluation_clips(world, clips_per_key=2))

    def encode(self, clips: Tensor) -> Tensor:
        return clips

    def decode(self, latents: Tensor) -> Tensor:
        return latents * 0.99

    def sample_key_frames(
        self, model: Any, centres: Tensor, captions: list[str], *_: Any, **__: Any
    ) -> Tensor:
        if not self.moves:
            return centres[:, None].repeat(1, len(BASE_TIMES), 1, 1, 1)
        clips = [next(self.clips).clip for _ in captions]
        return frames(self.world, clips, BASE_TIMES)


@pytest.mark.parametrize("moves", [True, False])
def test_rows_know_a_perfect_and_a_still_model(
    world: Path, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = EvaluationContext(Path(), Path(), Path(), split="test")
    evaluation.__dict__.update(emoji=world, pipeline=FakePipeline(world, moves), base=None)
    monkeypatch.setattr(
        EvaluationContext, "features", lambda self, clips: clips.diff(dim=1).abs().mean((2, 3, 4)) * 400
    )
    # There are too few keys to resample.
    monkeypatch.setattr(EvaluationContext, "resamples", lambda self, keys: torch.ones(2, len(keys)))
    chosen = evaluation_clips(world, clips_per_key=2)
    measured = keyframes.measure(evaluation, chosen, without_appearnet=False)
    found = keyframes.distances(evaluation, measured)
    motion, appearance, drift = keyframes.clip_rows(evaluation, measured)
    assert appearance.met and appearance.value.startswith("0.0")
    if moves:
        assert found.closed[keyframes.OURS].value == pytest.approx(found.closed[keyframes.CODED].value)
        assert motion.met and drift.met and motion.value.startswith("0.99")
    else:
        assert found.closed[keyframes.OURS].value == pytest.approx(0)
        assert not motion.met and motion.value.startswith("0.00")


class Listener:
    """A model that keeps the noise that it is given."""

    def __init__(self) -> None:
        self.heard: list[Tensor] = []

    def sample(
        self, appearance: Tensor, text: Tensor, empty: Tensor, *, frames: int, noise: Tensor, **_: Any
    ) -> Tensor:
        self.heard.append(noise)
        return torch.zeros(len(text), frames, *appearance.shape[1:])


def test_every_clip_has_tsr_noise_of_its_own_as_the_node_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine clips in batches of four, as `measure_tsr` counts their seeds, and both rounds: no frame's noise repeats."""
    pipeline = MiniPipeline(None, None, None)  # type: ignore[arg-type]
    monkeypatch.setattr(pipeline, "encode_text", lambda captions: torch.zeros(len(captions), 77, 4))
    seen, pairs = [], 4
    for round_ in (0, 1):
        for part in slices(9, 4):
            model, count = Listener(), part.stop - part.start
            keys, settings = torch.zeros(count, pairs + 1, 2, 4, 4), DDIMSettings().seeded(part.start)
            pipeline.interpolate(model, keys, [""] * count, settings, round_=round_)  # type: ignore[arg-type]
            windows = torch.cat(model.heard).view(count, pairs, WINDOW, -1)
            assert torch.equal(windows[:, :-1, -1], windows[:, 1:, 0]), "neighbours share a key frame"
            for clip in range(count):
                drawn = round_noise(part.start + clip, round_, pairs * FACTOR + 1, (2, 4, 4)).flatten(1)
                assert torch.equal(windows[clip, 1, 1:-1], drawn[FACTOR + 1 : 2 * FACTOR])
            seen.append(windows[:, :, :-1].flatten(0, 2))
    noise = torch.cat(seen)
    assert len(torch.unique(noise, dim=0)) == len(noise) == 2 * 9 * pairs * FACTOR


def test_a_split_as_videos_is_read_by_the_metrics_as_it_was_rendered(world: Path, tmp_path: Path) -> None:
    chosen = evaluation_clips(world, clips_per_key=1)[:2]
    videos.write(tmp_path, chosen, world)
    found, _ = scan(tmp_path / "real")
    prompts = read_prompts(tmp_path / "made")
    assert [(v.id, v.captions) for v in found] == [(p.file_name, (p.text,)) for p in prompts]
    assert [p.text for p in prompts] == [one.caption for one in chosen]
    for one, prompt in zip(chosen, prompts, strict=True):
        rendered = to_bytes(frames(world, [one.clip], BASE_TIMES)[0])
        with av.open(str(tmp_path / "real" / prompt.file_name)) as container:
            assert container.streams.video[0].average_rate == 2
            read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert np.array_equal(np.stack(read), rendered)
        picture = Image.open(tmp_path / "made" / "given" / f"{prompt.stem}.png")
        assert np.array_equal(np.asarray(picture), rendered[CENTRE_INDEX])
    with pytest.raises(ValueError, match="holds another list"):
        videos.write(tmp_path, chosen[:1], world)
