"""Write a changed prompt back into its workflow, so that a file with the workflow in it restores the graph that ran."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .workflow import BYPASSED, MUTED, WITHOUT_PROMPT, Links, Prompt, widget_places

_GAP, _SIZE = 40, (300, 100)
"""Pixels between the graph and the nodes that were added, and their size, which the front end then fits."""


def to_workflow(
    workflow: Mapping[str, Any], prompt: Prompt, object_info: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a workflow whose values, nodes and links are those of a prompt that was made from it and changed.

    Nodes that the prompt lacks are bypassed, as in the front end; those that it has besides are placed to the right.

    Args:
        workflow: a workflow in the front end's format, without subgraphs.
        prompt: the changed prompt in the API format.
        object_info: the host's GET /object_info.
    """
    graph = copy.deepcopy(dict(workflow))
    nodes = {str(node["id"]): node for node in graph["nodes"]}
    for name, node in nodes.items():
        if name in prompt:
            _set_values(node, prompt[name]["inputs"], object_info[node["type"]])
        elif node["type"] not in WITHOUT_PROMPT and node.get("mode") != MUTED:
            node["mode"] = BYPASSED
    for name in [name for name in prompt if name not in nodes]:
        nodes[name] = _add(graph, prompt[name], object_info)
    for name, node in nodes.items():
        if name in prompt:
            _set_links(graph, node, prompt[name]["inputs"], nodes)
    return graph


def _set_values(node: dict[str, Any], inputs: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    for name, place in widget_places(node, info).items():
        if name in inputs and not isinstance(inputs[name], list):
            node["widgets_values"][place] = inputs[name]


def _add(graph: dict[str, Any], given: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, Any]:
    """Add a node without links to the right of the graph."""
    info = object_info[given["class_type"]]
    kinds = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    linked = {name: kinds[name][0] for name, value in given["inputs"].items() if isinstance(value, list)}
    right = max(node["pos"][0] + node["size"][0] for node in graph["nodes"])
    top = min(node["pos"][1] for node in graph["nodes"])
    graph["last_node_id"] += 1
    node = {
        "id": graph["last_node_id"], "type": given["class_type"], "mode": 0,
        "pos": [right + _GAP, top], "size": list(_SIZE),
        "inputs": [{"name": name, "type": kind, "link": None} for name, kind in linked.items()],
        "outputs": [
            {"name": name, "type": kind, "links": []}
            for name, kind in zip(info["output_name"], info["output"], strict=True)
        ],
        "properties": {"Node name for S&R": given["class_type"]},
        "widgets_values": [value for value in given["inputs"].values() if not isinstance(value, list)],
    }  # fmt: skip
    graph["nodes"].append(node)
    return node


def _set_links(
    graph: dict[str, Any],
    node: dict[str, Any],
    inputs: Mapping[str, Any],
    nodes: Mapping[str, dict[str, Any]],
) -> None:
    """Give a node's inputs the links of the prompt, where they differ."""
    before = Links(graph).linked_inputs(node)
    for place, entry in enumerate(node.get("inputs") or []):
        value = inputs.get(entry["name"])
        if not isinstance(value, list):
            continue
        source = nodes[value[0]]
        if before.get(entry["name"]) == [str(source["id"]), value[1]]:
            continue
        _remove_link(graph, entry["link"])
        graph["last_link_id"] += 1
        entry["link"] = graph["last_link_id"]
        output = source["outputs"][value[1]]
        output["links"] = [*(output["links"] or []), entry["link"]]
        graph["links"].append([entry["link"], source["id"], value[1], node["id"], place, output["type"]])


def _remove_link(graph: dict[str, Any], number: int | None) -> None:
    graph["links"] = [link for link in graph["links"] if link[0] != number]
    for output in (output for node in graph["nodes"] for output in node.get("outputs") or []):
        output["links"] = [link for link in output.get("links") or [] if link != number]
