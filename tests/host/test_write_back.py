"""A changed prompt, written back into its workflow: the same prompt comes out of it again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from devtools.run import edit
from devtools.run.demo import IMAGE_WORKFLOW, TEXT_WORKFLOW
from devtools.run.home import ROOT
from devtools.run.server import ComfyServer
from devtools.run.workflow import BYPASSED, Prompt, read_workflow, to_prompt
from devtools.run.write_back import to_workflow

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


def connections(prompt: Prompt) -> list[tuple[str, dict[str, Any]]]:
    """Return classes and inputs of the nodes, with the class of a link's source instead of its number."""
    found = []
    for node in prompt.values():
        inputs = {
            name: [prompt[value[0]]["class_type"], value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        found.append((node["class_type"], inputs))
    return sorted(found, key=lambda one: json.dumps(one, sort_keys=True))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_what_was_not_changed_stays(host: ComfyServer, file: Path) -> None:
    info, workflow = host.object_info(), read_workflow(file)
    assert to_workflow(workflow, to_prompt(workflow, info), info) == workflow


@pytest.mark.parametrize("file", [TEXT_WORKFLOW, IMAGE_WORKFLOW], ids=lambda file: file.stem)
@pytest.mark.parametrize("rounds", [0, 1])
@pytest.mark.parametrize("upscale", [False, True])
def test_what_the_demo_changes_is_restored(host: ComfyServer, file: Path, rounds: int, upscale: bool) -> None:
    info, workflow = host.object_info(), read_workflow(file)
    prompt = to_prompt(workflow, info)
    edit.set_text(prompt, "a red heart")
    edit.set_everywhere(prompt, edit.SEEDS, 12345)
    edit.set_rounds(prompt, rounds)
    if upscale:
        edit.add_upscaler(prompt, "up.safetensors")
    edit.prune(prompt, info)
    before = copy.deepcopy(workflow)
    written = to_workflow(workflow, prompt, info)
    assert workflow == before, "the workflow that was given"
    assert connections(to_prompt(written, info)) == connections(prompt)
    bypassed = {node["type"] for node in written["nodes"] if node["mode"] == BYPASSED}
    assert ("MicroCinemaTSR" in bypassed) == (rounds == 0)
    check_links(written)


def check_links(workflow: dict[str, Any]) -> None:
    """Check that a link's two ends know of it, and that no number is used twice or beyond the last one."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"]) and max(nodes) <= workflow["last_node_id"]
    numbers = [link[0] for link in workflow["links"]]
    assert len(set(numbers)) == len(numbers) and max(numbers) <= workflow["last_link_id"]
    for number, origin, slot, target, place, kind in workflow["links"]:
        assert number in nodes[origin]["outputs"][slot]["links"]
        assert nodes[origin]["outputs"][slot]["type"] == kind
        assert nodes[target]["inputs"][place]["link"] == number
    ends = [entry["link"] for node in nodes.values() for entry in node.get("inputs") or []]
    assert {end for end in ends if end is not None} == set(numbers)
    starts = [
        n for node in nodes.values() for output in node.get("outputs") or [] for n in output["links"] or []
    ]
    assert sorted(starts) == sorted(numbers)
