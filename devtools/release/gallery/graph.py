"""Build workflows in the front end's format from the host's schemas."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from ...run.edit import SEEDS
from ...run.home import Problem
from ...run.workflow import WIDGET_TYPES
from .layout import Layout
from .models import metadata

Schemas = Mapping[str, Any]
Out = tuple[int, int]
"""Node id and output slot."""

GREEN, RED = ("#232", "#353"), ("#322", "#533")
"""Colours of a prompt and of a negative prompt: title bar and body."""
PROMPT, NEGATIVE = "(Prompt)", "Negative"
"""What the names of CLIP Text Encode and of its negative use contain."""


class Node:
    """A node of a graph; `node[0]` is its first output."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getitem__(self, slot: int) -> Out:
        return self.number, slot


class Graph:
    """A workflow under construction; nodes are added from top to bottom, column by column.

    Args:
        schemas: the host's GET /object_info.
        name: the workflow's name; its id is derived from it.
        note: Markdown of the note beside it; empty for no note.
        seed: seed of the first sampling node. Each further one gets the next number: no two draw the same noise.
    """

    def __init__(self, schemas: Schemas, name: str, note: str = "", seed: int = 1) -> None:
        self.schemas = schemas
        self.name = name
        self.note = note
        self.seed = seed
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.layout = Layout()

    def column(self, title: str) -> None:
        """Begin a new column, framed as a group with this title; the layout adds columns to a tall one."""
        self.layout.group(title)

    def add(self, kind: str, purpose: str = "", /, **given: Any) -> Node:
        """Add a node, titled with its class's own name and its purpose.

        Args:
            kind: its class.
            purpose: what it is for, where a graph has several of its class.
            given: its inputs by name: values, or outputs of other nodes.

        Raises:
            Problem: the host has no such node, or the node has no such input.
        """
        if kind not in self.schemas:
            raise Problem(
                f"The workflow {self.name} needs the node {kind}, which this ComfyUI does not have."
            )
        info = self.schemas[kind]
        name = info["display_name"] or kind
        fields = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        if unknown := set(given) - set(fields):
            raise Problem(f"{kind} has no input {', '.join(sorted(unknown))}.")
        values = widget_values(info, {**self._seeds(fields), **given})
        slots = [slot for _, slot in input_slots(info)]
        node: dict[str, Any] = {
            "id": len(self.nodes) + 1, "type": kind, "flags": {}, "order": len(self.nodes), "mode": 0,
            "inputs": slots, "outputs": output_slots(info), "properties": {"Node name for S&R": kind},
            "widgets_values": values,
        }  # fmt: skip
        if purpose:
            node["title"] = title(name, purpose)
        if models := metadata(values):
            node["properties"]["models"] = models
        if PROMPT in name:
            node["color"], node["bgcolor"] = RED if NEGATIVE in purpose else GREEN
        self.nodes.append(node)
        self.layout.add(node)
        for place, slot in enumerate(slots):
            if isinstance(given.get(slot["name"]), tuple):
                self._link(given[slot["name"]], node, place)
        return Node(node["id"])

    def _seeds(self, fields: Mapping[str, Any]) -> dict[str, int]:
        """Return the seed of a node with these inputs, if it is a sampling node: the next one."""
        named = [name for name in SEEDS if name in fields]
        self.seed += len(named)
        return dict.fromkeys(named, self.seed - 1)

    def _link(self, source: Out, target: dict[str, Any], place: int) -> None:
        origin, slot = source
        number = len(self.links) + 1
        output = self.nodes[origin - 1]["outputs"][slot]
        output["links"] = [*(output["links"] or []), number]
        target["inputs"][place]["link"] = number
        self.links.append([number, origin, slot, target["id"], place, output["type"]])

    def workflow(self) -> dict[str, Any]:
        """Return the graph in the front end's format."""
        nodes, note = self.nodes, None
        if self.note:
            note = note_node(len(self.nodes) + 1, self.note)
            nodes = [*self.nodes, note]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"microcinema/{self.name}")),
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(self.links),
            "nodes": nodes,
            "links": self.links,
            **self.layout.finish(self.links, note),
            "config": {},
            "version": 0.4,
        }


def title(name: str, purpose: str) -> str:
    """Return a node's title: its class's own name and its purpose."""
    return name.replace(PROMPT, f"({purpose})") if PROMPT in name else f"{name}: {purpose}"


def note_node(number: int, text: str) -> dict[str, Any]:
    """Return a note with this id and Markdown; the layout gives it its place."""
    return {
        "id": number, "type": "MarkdownNote", "flags": {}, "order": number - 1, "mode": 0, "inputs": [], "outputs": [],
        "title": "Read me", "properties": {}, "widgets_values": [text], "color": "#432", "bgcolor": "#653",
    }  # fmt: skip


def input_slots(info: Schemas) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, unconnected slot) of all inputs of a node, in the host's order."""
    found = []
    for group in ("required", "optional"):
        for name, spec in (info["input"].get(group) or {}).items():
            options = spec[1] if len(spec) > 1 else {}
            kind = "COMBO" if isinstance(spec[0], list) else spec[0]
            slot: dict[str, Any] = {"name": name, "type": kind, "link": None}
            if group == "optional":
                slot["shape"] = 7
            if kind in WIDGET_TYPES and not options.get("forceInput"):
                slot["widget"] = {"name": name}
            found.append((name, slot))
    return found


def output_slots(info: Schemas) -> list[dict[str, Any]]:
    """Return the unconnected outputs of a node."""
    pairs = zip(info["output_name"], info["output"], strict=True)
    return [{"name": name, "type": kind, "links": None} for name, kind in pairs]


def widget_values(info: Schemas, given: Mapping[str, Any]) -> list[Any]:
    """Return a node's widget values in the front end's order; the host's defaults where none is given."""
    values: list[Any] = []
    specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    for name, slot in input_slots(info):
        if "widget" in slot:
            value = given.get(name)
            values.append(default_value(specs[name]) if value is None or isinstance(value, tuple) else value)
            options = specs[name][1] if len(specs[name]) > 1 else {}
            if options.get("control_after_generate"):
                values.append("fixed")
            if options.get("image_upload") or options.get("video_upload"):
                values.append("image")
    return values


def default_value(spec: list[Any]) -> Any:
    """Return the value that the front end shows in a new node's widget."""
    options = spec[1] if len(spec) > 1 else {}
    choices = spec[0] if isinstance(spec[0], list) else options.get("options", [])
    blank = {"STRING": "", "BOOLEAN": False}.get(spec[0] if isinstance(spec[0], str) else "", 0)
    return options.get("default", choices[0] if choices else blank)
