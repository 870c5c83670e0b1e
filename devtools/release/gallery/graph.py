"""Build workflows in the front end's format from the host's schemas, with the nodes in columns."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from ...run.home import Problem
from ...run.workflow import WIDGET_TYPES
from .models import metadata

Schemas = Mapping[str, Any]
Out = tuple[int, int]
"""Node id and output slot."""

COLUMN, GAP, LEFT, TOP = 380, 50, 20, 0
EXTRA = {
    "CLIPTextEncode": 60,
    "LoadImage": 250,
    "LoadVideo": 250,
    "PreviewImage": 260,
    "MicroCinemaFrameCombine": 320,
    "SaveVideo": 400,
}
"""Height in pixels of a node's text field, picture or clip, in addition to its slots."""
GREEN, RED = ("#232", "#353"), ("#322", "#533")
GROUPS = ("#3f789e", "#b58b2a", "#3f789e", "#8A8", "#a1309b")


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
    """

    def __init__(self, schemas: Schemas, name: str, note: str = "") -> None:
        self.schemas = schemas
        self.name = name
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.groups: list[dict[str, Any]] = []
        self._x, self._y = LEFT - COLUMN - 20, TOP
        if note:
            self._place("MarkdownNote", "Read me", (420, 420), [note], (-460, -80))
            self.nodes[-1] |= {"color": "#432", "bgcolor": "#653", "properties": {}}

    def column(self, title: str) -> None:
        """Begin a new column, framed as a group with this title."""
        self._x, self._y = self._x + COLUMN + 20, TOP
        number = len(self.groups)
        bounding = [self._x - 20, -80, COLUMN, 0]
        color = GROUPS[number % len(GROUPS)]
        self.groups.append({"id": number + 1, "title": title, "bounding": bounding, "color": color,
                            "font_size": 24, "flags": {}})  # fmt: skip

    def add(self, kind: str, title: str = "", **given: Any) -> Node:
        """Add a node.

        Args:
            kind: its class.
            title: empty for the class's own.
            given: its inputs by name: values, or outputs of other nodes.

        Raises:
            Problem: the host has no such node, or the node has no such input.
        """
        if kind not in self.schemas:
            raise Problem(
                f"The workflow {self.name} needs the node {kind}, which this ComfyUI does not have."
            )
        info = self.schemas[kind]
        fields = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        if unknown := set(given) - set(fields):
            raise Problem(f"{kind} has no input {', '.join(sorted(unknown))}.")
        values = widget_values(info, given)
        slots = [slot for _, slot in input_slots(info)]
        shown = sum("widget" in slot for slot in slots)
        height = 40 + 20 * max(len(slots) - shown, len(info["output"])) + 24 * shown + EXTRA.get(kind, 0)
        node = self._place(kind, title, (COLUMN - 40, height), values, (self._x, self._y))
        node["inputs"], node["outputs"] = slots, output_slots(info)
        node["properties"] = {"Node name for S&R": kind}
        if models := metadata(values):
            node["properties"]["models"] = models
        if title.endswith("rompt") and kind == "CLIPTextEncode":
            node["color"], node["bgcolor"] = RED if title.startswith("Neg") else GREEN
        for place, slot in enumerate(slots):
            if isinstance(given.get(slot["name"]), tuple):
                self._link(given[slot["name"]], node, place)
        self._y += height + GAP
        if self.groups:
            bounding = self.groups[-1]["bounding"]
            bounding[3] = max(bounding[3], self._y + 60)
        return Node(node["id"])

    def _place(
        self, kind: str, title: str, size: tuple[int, int], values: list[Any], at: tuple[int, int]
    ) -> dict[str, Any]:
        number = len(self.nodes) + 1
        node = {"id": number, "type": kind, "pos": list(at), "size": list(size), "flags": {}, "order": number - 1,
                "mode": 0, "inputs": [], "outputs": [], "properties": {}, "widgets_values": values}  # fmt: skip
        if title:
            node["title"] = title
        self.nodes.append(node)
        return node

    def _link(self, source: Out, target: dict[str, Any], place: int) -> None:
        origin, slot = source
        number = len(self.links) + 1
        output = self.nodes[origin - 1]["outputs"][slot]
        output["links"] = [*(output["links"] or []), number]
        target["inputs"][place]["link"] = number
        self.links.append([number, origin, slot, target["id"], place, output["type"]])

    def workflow(self) -> dict[str, Any]:
        """Return the graph in the front end's format."""
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"microcinema/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [560, 260]}},
            "version": 0.4,
        }


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
