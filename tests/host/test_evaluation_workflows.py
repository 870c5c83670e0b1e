"""The workflows for the paper's evaluation, as `devtools.run.batch` reads them, and those for later hosts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from devtools.release.gallery.newer import NEWER, SCHEMAS
from devtools.run.batch import build_parser, read_graph
from devtools.run.home import ROOT
from devtools.run.prompt_inputs import title_of
from devtools.run.server import ComfyServer
from tests.host.quick import WORKFLOWS

EVALUATION = sorted(WORKFLOWS.glob("5*.json"))
CAPTIONED = ROOT / "workflows" / "newer" / "52 Captioned picture to video (SD 2).json"


def options(file: Path, *more: str) -> Namespace:
    return build_parser().parse_args(["out", str(file), *more])


def kinds(prompt: dict[str, Any]) -> set[str]:
    return {node["class_type"] for node in prompt.values()}


@pytest.mark.parametrize("file", EVALUATION, ids=lambda file: file.stem)
def test_one_prompt_serves_both_stages(host: ComfyServer, file: Path) -> None:
    graph = read_graph(options(file, "--kind", "video"), host.object_info())
    assert [title_of(graph.prompt, key) for key, _ in graph.texts] == ["String (Multiline): prompt"]
    made = graph.filled("a video of archery", 7)
    encoders = [node for node in made.values() if node["class_type"] == "CLIPTextEncode"]
    (text,) = {
        str(node["inputs"]["text"][0]) for node in encoders if isinstance(node["inputs"]["text"], list)
    }
    assert made[text]["inputs"]["value"] == "a video of archery"
    assert len({made[key]["inputs"][name] for key, name in graph.seeds}) == 2
    (sampler,) = (node for node in made.values() if node["class_type"] == "MicroCinemaSampler")
    assert sampler["inputs"]["frames"] == 17 and "MicroCinemaTSR" not in kinds(made)


@pytest.mark.parametrize("file", EVALUATION, ids=lambda file: file.stem)
def test_each_stage_runs_alone(host: ComfyServer, file: Path) -> None:
    pictures = read_graph(options(file, "--kind", "picture"), host.object_info())
    assert pictures.kind == "picture"
    assert not kinds(pictures.prompt) & {"MicroCinemaSampler", "MicroCinemaCheckpointLoader", "SaveVideo"}
    videos = read_graph(options(file, "--kind", "video", "--centres", "folder"), host.object_info())
    assert not kinds(videos.prompt) & {"KSampler", "SaveImage", "EmptyLatentImage"}
    assert videos.picture is not None and len(videos.texts) == 1
    files = {node["inputs"]["ckpt_name"] for node in videos.prompt.values() if "ckpt_name" in node["inputs"]}
    assert files == {"v2-1_512-ema-pruned.safetensors"}, "SDXL is not loaded"


def test_a_captioner_writes_the_prompt_itself(host: ComfyServer) -> None:
    graph = read_graph(options(CAPTIONED, "--centres", "folder"), {**SCHEMAS, **host.object_info()})
    assert graph.texts == [] and graph.kind == "video"
    (caption,) = (key for key, node in graph.prompt.items() if node["class_type"] == "TextGenerate")
    assert (
        graph.prompt[caption]["inputs"]["prompt"] == graph.filled("another", 1)[caption]["inputs"]["prompt"]
    )
    texts = [
        node["inputs"]["text"] for node in graph.prompt.values() if node["class_type"] == "CLIPTextEncode"
    ]
    assert [caption, 0] in texts


def test_what_is_newer_is_as_described(host: ComfyServer) -> None:
    """On a host that has these nodes: every input that a workflow uses is there, with its type."""
    there = host.object_info()
    if not set(SCHEMAS) <= set(there):
        assert not (ROOT / "workflows" / CAPTIONED.name).exists(), "older hosts do not offer it"
        pytest.skip("this ComfyUI is older than the nodes")
    for kind, schema in SCHEMAS.items():
        assert (
            there[kind]["display_name"] == schema["display_name"]
            and there[kind]["output"] == schema["output"]
        )
        for group, inputs in schema["input"].items():
            for name, (type_, *_) in inputs.items():
                assert there[kind]["input"][group][name][0] == type_, name
    assert {file.stem for file in CAPTIONED.parent.glob("*.json")} == set(NEWER)
