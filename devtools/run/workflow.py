"""Read workflows that the front end saved as prompts for POST /prompt, and change such prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microcinema_core import json_text

from .home import Problem

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
"""A combo whose value decides which further inputs there are: `format`, then `format.codec`."""
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC_COMBO}
NOTE_NODES = {"Note", "MarkdownNote"}
WITHOUT_PROMPT = {*NOTE_NODES, "Reroute", "PrimitiveNode"}
"""Nodes of the front end alone."""
MUTED, BYPASSED = 2, 4
Prompt = dict[str, dict[str, Any]]
Widget = tuple[str, str, Mapping[str, Any]]
"""Name, type and options of an input that the front end shows as a widget."""


def read_workflow(path: Path) -> dict[str, Any]:
    """Read a workflow file, in the front end's format or the API's.

    Raises:
        Problem: it cannot be read, or is no JSON object.
    """
    try:
        content = json_text.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Problem(f"The workflow {path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise Problem(f"{path} is no workflow: save it in ComfyUI with Save or Export (API).")
    return content


def read_prompt(path: Path, object_info: Mapping[str, Any]) -> Prompt:
    """Read a workflow file and return it in the API format (see `to_prompt`)."""
    return to_prompt(read_workflow(path), object_info)


def to_prompt(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> Prompt:
    """Return the API prompt of a workflow in the front end's format, with the titles in `_meta`.

    Args:
        workflow: a workflow in the front end's format, without subgraphs.
        object_info: the host's GET /object_info, which has the order of each node's widgets.

    Raises:
        Problem: the workflow has subgraphs, or a node that the host does not have.
    """
    if (workflow.get("definitions") or {}).get("subgraphs"):
        raise Problem(
            "The workflow has subgraphs, which only ComfyUI can resolve: save it there with Export (API), and give "
            "that file."
        )
    graph = Links(workflow)
    prompt: Prompt = {}
    for node in workflow["nodes"]:
        kind = node["type"]
        if kind in WITHOUT_PROMPT or node.get("mode") in (MUTED, BYPASSED):
            continue
        if kind not in object_info:
            raise Problem(f"The workflow needs the node {kind}, which this ComfyUI does not have.")
        inputs = widget_values(node, object_info[kind]) | graph.linked_inputs(node)
        title = node.get("title") or object_info[kind].get("display_name") or kind
        prompt[str(node["id"])] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
    for node in prompt.values():  # drop links to muted nodes
        node["inputs"] = {k: v for k, v in node["inputs"].items() if not _is_link(v) or v[0] in prompt}
    return prompt


def widget_values(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a node's widgets by input name."""
    values = node.get("widgets_values") or []
    return {name: values[place] for name, place in widget_places(node, info).items()}


def widget_places(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Return where in a node's `widgets_values` the value of each input is, by the input's name."""
    values, widgets = node.get("widgets_values") or [], _widgets(info["input"], info)
    if isinstance(values, Mapping):
        return {name: name for name, _, _ in widgets if name in values}
    return _assign(values, list(range(len(values))), widgets)


def _assign(values: list[Any], places: list[int], widgets: list[Widget]) -> dict[str, Any]:
    """Assign the remaining places to widgets in order; the inputs of a dynamic combo follow directly after it."""
    result: dict[str, Any] = {}
    for name, kind, options in widgets:
        if not places:
            break
        result[name] = places.pop(0)
        if kind == DYNAMIC_COMBO:
            chosen = [one["inputs"] for one in options["options"] if one["key"] == values[result[name]]]
            further = _assign(values, places, [widget for inputs in chosen for widget in _widgets(inputs)])
            result |= {f"{name}.{key}": place for key, place in further.items()}
        controlled = options.get("control_after_generate")
        if controlled is None:
            controlled = kind == "INT" and name in ("seed", "noise_seed")
        if controlled:
            del places[:1]  # "fixed", "randomize" ... follows a seed
    return result


def _widgets(groups: Mapping[str, Any], info: Mapping[str, Any] | None = None) -> list[Widget]:
    """Return the inputs that the front end shows as widgets, in its order."""
    found = []
    for group in ("required", "optional"):
        inputs = groups.get(group) or {}
        for name in ((info or {}).get("input_order") or {}).get(group) or list(inputs):
            kind, options = inputs[name][0], (inputs[name][1:] or [{}])[0] or {}
            kind = "COMBO" if isinstance(kind, list) else options.get("widgetType", kind)
            if kind in WIDGET_TYPES and not (options.get("forceInput") or options.get("hidden")):
                found.append((name, kind, options))
    return found


def _is_link(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and isinstance(value[0], str) and isinstance(value[1], int)


class Links:
    """Nodes and links of a workflow; follows links through reroutes and bypassed nodes."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        self.nodes = {node["id"]: node for node in workflow["nodes"]}
        self.links = {}
        for link in workflow.get("links") or []:
            if isinstance(link, Mapping):
                link = [link["id"], link["origin_id"], link["origin_slot"]]
            self.links[link[0]] = (link[1], link[2])

    def linked_inputs(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return the source of each connected input: [node id, slot], or a primitive's value."""
        linked = {}
        for entry in node.get("inputs") or []:
            if entry.get("link") is not None:
                value = self._source(entry["link"])
                if value is not None:
                    linked[entry["name"]] = value
        return linked

    def _source(self, link: int) -> Any:
        if link not in self.links:
            return None
        origin, slot = self.links[link]
        node = self.nodes[origin]
        if node["type"] == "PrimitiveNode":
            return node["widgets_values"][0]
        if node["type"] == "Reroute":
            return self._pass_through(node, None)
        if node.get("mode") == BYPASSED:
            return self._pass_through(node, node["outputs"][slot]["type"], slot)
        return [str(origin), slot]

    def _pass_through(self, node: Mapping[str, Any], kind: str | None, slot: int = 0) -> Any:
        """Follow the input in the output's place if its type fits, else the first that fits, as the front end does."""
        inputs = node.get("inputs") or []
        for entry in [*inputs[slot : slot + 1], *inputs]:
            if entry.get("link") is not None and kind in (None, entry["type"]):
                return self._source(entry["link"])
        return None
