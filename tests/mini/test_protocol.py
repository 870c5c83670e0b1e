"""The table's clips, and its rows for models whose answers are known."""

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
from mini.evaluate.mini_pipeline import Settings
from mini.evaluate.protocol import cases, directions, frames, silhouettes
from mini.world.motion_split import is_test
from mini.world.render import BASE_TIMES, CENTRE, MOTIONS
from tests.mini.data_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("emoji"))


def test_cases_are_of_unseen_motions_and_always_the_same(world: Path) -> None:
    chosen = cases(world, a_key=4)
    assert chosen and all(is_test(case.key) for case in chosen)
    assert set(Counter(case.key for case in chosen).values()) == {4}
    again = cases(world, a_key=4)
    assert [(c.clip.phase, c.clip.centre, c.caption) for c in chosen] == [
        (c.clip.phase, c.clip.centre, c.caption) for c in again
    ]
    assert all(c.ceiling.phase != c.clip.phase and c.ceiling.centre == c.clip.centre for c in chosen)


ASKED: dict[str, Settings] = {"MicroCinemaSampler": BASE, "MicroCinemaTSR": TSR}
WORKFLOWS = [
    file
    for file in sorted((ROOT / "workflows" / "api").glob("*.json"))
    if '"mini_tsr.' in file.read_text(encoding="utf-8")
]
"""Those that ask the mini models; not those of one's own Stable Diffusion."""


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_the_shipped_workflows_ask_as_the_table_does(file: Path) -> None:
    nodes = [node for node in json.loads(file.read_text()).values() if node["class_type"] in ASKED]
    given = {"MicroCinemaSampler"} if file.stem == "interpolate_any_frames" else set()
    assert {node["class_type"] for node in nodes} == set(ASKED) - given
    for node in nodes:
        given, asked = node["inputs"], ASKED[node["class_type"]]
        assert (given["sampler_name"], given["scheduler"]) == ("ddim", "normal"), "what the core samples with"
        assert (given["steps"], given["cfg"]) == (asked.steps, asked.guidance_scale)
        assert given["gamma"] == asked.gamma


def test_the_shipped_subgraphs_ask_as_the_table_does() -> None:
    seen = set()
    for file in sorted((ROOT / "subgraphs").glob("*.json")):
        (definition,) = json.loads(file.read_text(encoding="utf-8"))["definitions"]["subgraphs"]
        for node in definition["nodes"]:
            if settings := ASKED.get(node["type"]):
                values = node["widgets_values"]
                first = values.index("ddim") - 2
                wanted = [settings.steps, settings.guidance_scale, "ddim", "normal", -1.0, settings.gamma]
                assert values[first : first + 6] == wanted
                seen.add(node["type"])
    assert seen == set(ASKED)


@pytest.mark.parametrize("node", ["MicroCinemaNoisePrior", "MicroCinemaSampler"])
def test_help_names_the_tables_gamma(node: str) -> None:
    told = (ROOT / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8")
    assert (
        f"the mini base model's {BASE.gamma:g}." in told or f"{BASE.gamma:g} the mini base model's." in told
    )


def test_all_directions_are_asked_of_one_centre_frame(world: Path) -> None:
    asked = directions(world, subjects=3)
    assert [one.clip.motion for one in asked] == [*MOTIONS] * 3
    for start in range(0, len(asked), 6):
        pictures = frames(world, [one.clip for one in asked[start : start + 6]], [CENTRE])
        assert torch.equal(pictures, pictures[:1].expand_as(pictures))


def test_the_silhouette_is_where_the_object_is(world: Path) -> None:
    clip = cases(world, a_key=1)[0].clip
    alpha = silhouettes(world, [clip], CENTRE)[0]
    picture = frames(world, [clip], [CENTRE])[0, 0]
    differs = (picture - (clip.background.pixels * 2 - 1)).abs().mean(0) > 0.05
    assert not (differs & (alpha < 0.01)).any() and (alpha > 0.9).any()


class FakeFamily:
    """A VAE that loses a little contrast, and a model that makes the real clips or repeats the centre frame."""

    def __init__(self, world: Path, moves: bool) -> None:
        self.world, self.moves = world, moves
        self.clips = iter(cases(world, a_key=2))

    def encode(self, clips: Tensor) -> Tensor:
        return clips

    def decode(self, latents: Tensor) -> Tensor:
        return latents * 0.99

    def key_frames(self, model: Any, centres: Tensor, captions: list[str], *_: Any, **__: Any) -> Tensor:
        if not self.moves:
            return centres[:, None].repeat(1, len(BASE_TIMES), 1, 1, 1)
        clips = [next(self.clips).clip for _ in captions]
        return frames(self.world, clips, BASE_TIMES)


@pytest.mark.parametrize("moves", [True, False])
def test_rows_know_a_perfect_and_a_still_model(
    world: Path, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = EvaluationContext(Path(), Path(), Path())
    lab.__dict__.update(emoji=world, family=FakeFamily(world, moves), base=None)
    monkeypatch.setattr(
        EvaluationContext, "features", lambda self, clips: clips.diff(dim=1).abs().mean((2, 3, 4)) * 400
    )
    # so few keys leave nothing to draw from
    monkeypatch.setattr(EvaluationContext, "resamples", lambda self, keys: torch.ones(2, len(keys)))
    found = keyframes.measure(lab, cases(world, a_key=2), bare=False)
    far = keyframes.distances(lab, found)
    motion, looks, drift = keyframes.clip_rows(lab, found)
    assert looks.met and looks.figure.startswith("0.0")
    if moves:
        assert far.closed[keyframes.OURS].value == pytest.approx(far.closed[keyframes.CODED].value)
        assert motion.met and drift.met and motion.figure.startswith("0.99")
    else:
        assert far.closed[keyframes.OURS].value == pytest.approx(0)
        assert not motion.met and motion.figure.startswith("0.00")
