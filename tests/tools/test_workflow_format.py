"""Conversion of the front end's graph format to the API's, and changes of a prompt."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from devtools.run.edit import (
    add_upscaler,
    get_text,
    prune,
    set_everywhere,
    set_rounds,
    set_seeds,
    set_text,
    values_of,
)
from devtools.run.home import ROOT, Problem
from devtools.run.workflow import read_prompt, to_prompt

INFO: dict[str, Any] = {
    "Load": {"input": {"required": {"file": [["a", "b"], {"image_upload": True}]}}},
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "mode": ["COMBO", {"options": ["x", "y"]}],
                "given": ["FLOAT", {"forceInput": True}],
            },
            "optional": {"note": ["STRING", {}]},
        },
        "input_order": {"required": ["model", "seed", "steps", "mode", "given"], "optional": ["note"]},
        "display_name": "Sampler",
    },
    "Change": {"input": {"required": {"model": ["MODEL"], "by": ["FLOAT", {}]}}},
}


def node(identity: int, kind: str, widgets: list, links: dict | None = None, **more: Any) -> dict:
    inputs = [{"name": name, "type": "MODEL", "link": link} for name, link in (links or {}).items()]
    outputs = [{"type": "MODEL"}]
    return {
        "id": identity,
        "type": kind,
        "widgets_values": widgets,
        "inputs": inputs,
        "outputs": outputs,
        **more,
    }


def chain(**middle: Any) -> dict:
    """Return Load -> Change -> Reroute -> Sample; the seed of Sample comes from a primitive."""
    return {
        "nodes": [
            node(1, "Load", ["a", "image"]),
            node(2, "Change", [0.5], {"model": 11}, **middle),
            node(3, "Reroute", [], {"": 12}),
            node(4, "Sample", [7, "randomize", 30, "y", "hello"], {"model": 13, "seed": 14}),
            node(5, "PrimitiveNode", [99, "fixed"]),
            node(6, "MarkdownNote", ["read me"]),
        ],
        "links": [
            [11, 1, 0, 2, 0, "MODEL"],
            [12, 2, 0, 3, 0, "MODEL"],
            [13, 3, 0, 4, 0, "MODEL"],
            {"id": 14, "origin_id": 5, "origin_slot": 0},
        ],
    }


def test_a_choice_brings_inputs_of_its_own() -> None:
    """As in Save Video of later hosts; older workflows have the values in the same order."""
    codec = [
        "COMFY_DYNAMICCOMBO_V3",
        {"options": [{"key": "auto", "inputs": {}}, {"key": "h264", "inputs": {}}]},
    ]
    options = [
        {"key": "mkv", "inputs": {}},
        {"key": "mp4", "inputs": {"required": {"codec": codec}, "optional": {"crf": ["FLOAT", {}]}}},
    ]
    inputs = {
        "required": {"prefix": ["STRING", {}], "format": ["COMFY_DYNAMICCOMBO_V3", {"options": options}]},
        "optional": {"codec": [codec[0], {**codec[1], "hidden": True}], "last": ["INT", {}]},
    }

    def widgets(*values: Any) -> dict[str, Any]:
        return to_prompt({"nodes": [node(1, "Save", [*values])]}, {"Save": {"input": inputs}})["1"]["inputs"]

    assert widgets("a", "mkv", 3) == {"prefix": "a", "format": "mkv", "last": 3}
    assert widgets("a", "mp4", "auto") == {"prefix": "a", "format": "mp4", "format.codec": "auto"}
    assert widgets("a", "mp4", "h264", 20.0, 3) == {
        **widgets("a", "mp4", "h264"),
        "format.crf": 20.0,
        "last": 3,
    }


def test_widgets_links_reroutes_and_primitives() -> None:
    prompt = to_prompt(chain(), INFO)
    assert set(prompt) == {"1", "2", "4"}
    assert prompt["1"]["inputs"] == {"file": "a"}
    assert prompt["4"]["inputs"] == {"model": ["2", 0], "seed": 99, "steps": 30, "mode": "y", "note": "hello"}
    assert prompt["4"]["_meta"]["title"] == "Sampler"


def test_bypassed_and_muted_nodes() -> None:
    assert to_prompt(chain(mode=4), INFO)["4"]["inputs"]["model"] == ["1", 0]
    assert "model" not in to_prompt(chain(mode=2), INFO)["4"]["inputs"]


def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="needs the node Load"):
        to_prompt(chain(), {})
    with pytest.raises(Problem, match="subgraphs"):
        to_prompt({"nodes": [], "definitions": {"subgraphs": [{}]}}, INFO)
    for text in ("{", "[" * 100_000):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(Problem, match="cannot be read"):
            read_prompt(tmp_path / "broken.json", INFO)


def cascade() -> dict:
    return json.loads(
        json.dumps(
            {
                "t": {"class_type": "CLIPTextEncode", "inputs": {"text": "a horse", "clip": ["c", 1]}},
                "n": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["c", 1]}},
                "s": {
                    "class_type": "MicroCinemaSampler",
                    "inputs": {"positive": ["t", 0], "negative": ["n", 0], "seed": 1, "steps": 20},
                },
                "r": {
                    "class_type": "MicroCinemaTSR",
                    "inputs": {"key_frames": ["s", 0], "fps": ["s", 1], "positive": ["t", 0], "rounds": 2},
                },
                "d": {"class_type": "VAEDecode", "inputs": {"samples": ["r", 0]}},
                "f": {
                    "class_type": "MicroCinemaFrameCombine",
                    "inputs": {"images": ["d", 0], "fps": ["r", 1]},
                },
            }
        )
    )


def test_the_demo_changes_the_graph() -> None:
    prompt = cascade()
    set_text(prompt, "a cat")
    set_everywhere(prompt, ("seed",), 5)
    set_rounds(prompt, 1)
    add_upscaler(prompt, "up.safetensors")
    assert (prompt["t"]["inputs"]["text"], prompt["n"]["inputs"]["text"]) == ("a cat", "")
    assert get_text(prompt) == "a cat"
    assert values_of(prompt, ("seed",)) == [5]
    assert prompt["r"]["inputs"]["rounds"] == 1
    assert prompt["f"]["inputs"]["images"] == ["upscale-0", 0]
    assert prompt["upscale-0"]["inputs"]["image"] == ["d", 0]


def test_no_rounds_means_no_interpolation() -> None:
    prompt = cascade()
    set_rounds(prompt, 0)
    assert "r" not in prompt
    assert prompt["d"]["inputs"]["samples"] == ["s", 0]
    assert prompt["f"]["inputs"]["fps"] == ["s", 1]


def test_what_nothing_needs_is_taken_out() -> None:
    prompt = cascade()
    prompt["c"] = {"class_type": "Load", "inputs": {}}
    prompt["x"] = {"class_type": "Load", "inputs": {"model": ["c", 0]}}
    kinds = {node["class_type"] for node in prompt.values()}
    prune(prompt, {kind: {"output_node": kind == "MicroCinemaFrameCombine"} for kind in kinds})
    assert set(prompt) == set("tnsrdfc")


@pytest.mark.parametrize(
    "file", sorted([*(ROOT / "workflows").rglob("*.json"), *(ROOT / "subgraphs").glob("*.json")]), ids=str
)
def test_no_two_sampling_nodes_share_a_seed(file: Path) -> None:
    """Else they draw the same noise. In graphs, a seed is the value before its control ("fixed")."""
    graph = json.loads(file.read_text(encoding="utf-8"))
    if file.parent.name == "api":
        seeds = values_of(graph, ("seed", "noise_seed"))
    else:
        (nodes,) = (
            part["nodes"] for part in [*(graph.get("definitions") or {}).get("subgraphs", []), graph][:1]
        )
        values = [node.get("widgets_values") or [] for node in nodes]
        seeds = [before for given in values for before, after in pairwise(given) if after == "fixed"]
    assert seeds and len(set(seeds)) == len(seeds), seeds


def test_blueprints_can_be_joined_in_one_graph() -> None:
    """They start from different seeds."""
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "subgraphs").glob("*.json")]
    firsts = [re.search(r'(\d+),\s*"fixed"', text) for text in texts]
    assert len({found[1] for found in firsts if found}) == len(texts) > 1


def test_a_seed_of_the_demo_starts_different_noise_in_each_node() -> None:
    prompt = cascade()
    prompt["r"]["inputs"]["seed"] = 1
    set_seeds(prompt, 2**64 - 1)
    assert values_of(prompt, ("seed",)) == [2**64 - 1, 0]
