"""The evaluated clips, the shipped workflows' sampler settings, and result rows of models with known results."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from devtools.run.home import ROOT
from mini.evaluate import base as keyframes
from mini.evaluate.evaluation_context import BASE, TSR, EvaluationContext
from mini.evaluate.mini_pipeline import DDIMSettings
from mini.evaluate.protocol import evaluation_clips, frames, motion_clips, silhouettes
from mini.world.motion_split import is_test
from mini.world.render import BASE_TIMES, CENTRE_TIME, MOTIONS
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
    given = {"MicroCinemaSampler"} if file.stem == "interpolate_any_frames" else set()
    assert {node["class_type"] for node in nodes} == set(SETTINGS) - given
    for node in nodes:
        given, asked = node["inputs"], SETTINGS[node["class_type"]]
        assert (given["sampler_name"], given["scheduler"]) == ("ddim", "normal"), "what the core samples with"
        assert (given["steps"], given["cfg"]) == (asked.steps, asked.guidance_scale)
        assert given["gamma"] == asked.gamma


def test_the_shipped_subgraphs_ask_as_the_table_does() -> None:
    seen = set()
    for file in sorted((ROOT / "subgraphs").glob("*.json")):
        (definition,) = json.loads(file.read_text(encoding="utf-8"))["definitions"]["subgraphs"]
        for node in definition["nodes"]:
            if settings := SETTINGS.get(node["type"]):
                values = node["widgets_values"]
                if "ddim" not in values:
                    assert "MicroCinema Longer Video" in file.stem, "the one that is not for the mini models"
                    continue
                first = values.index("ddim") - 2
                wanted = [settings.steps, settings.guidance_scale, "ddim", "normal", -1.0, settings.gamma]
                assert values[first : first + 6] == wanted
                seen.add(node["type"])
    assert seen == set(SETTINGS)


@pytest.mark.parametrize("node", ["MicroCinemaNoisePrior", "MicroCinemaSampler"])
def test_help_names_the_tables_gamma(node: str) -> None:
    text = (ROOT / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8")
    assert f"the mini base model's is {BASE.gamma:g}." in text


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
    evaluation = EvaluationContext(Path(), Path(), Path())
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
