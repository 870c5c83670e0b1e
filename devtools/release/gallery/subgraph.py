"""A graph as one node, in the front end's format of a subgraph blueprint."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from .graph import Graph, Node, Out

ENTRY, EXIT = -10, -20
"""The front end's ids for the inputs and outputs of a subgraph."""


@dataclass
class Subgraph:
    """A graph with the inputs, outputs and widgets that it has as a single node.

    Attributes:
        graph: the nodes inside.
        inputs: (Name of the outer input, inner node, name of its input).
        outputs: (Name of the outer output, inner output).
        widgets: (Inner node, name of its widget) of the widgets shown on the outer node.
    """

    graph: Graph
    inputs: list[tuple[str, Node, str]] = field(default_factory=list)
    outputs: list[tuple[str, Out]] = field(default_factory=list)
    widgets: list[tuple[Node, str]] = field(default_factory=list)

    def workflow(self, name: str) -> dict[str, Any]:
        """Return the blueprint of this name: a workflow of one node, and that node's definition."""
        identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"microcinema/blueprint/{name}"))
        definition = self._definition(identity, name)
        node = {
            "id": 1, "type": identity, "pos": [0, 0], "size": [340, 260], "flags": {}, "order": 0, "mode": 0,
            "inputs": [{"name": slot["name"], "type": slot["type"], "link": None} for slot in definition["inputs"]],
            "outputs": [{"name": slot["name"], "type": slot["type"], "links": []} for slot in definition["outputs"]],
            "title": name,
            "properties": {"proxyWidgets": [[str(node.number), widget] for node, widget in self.widgets]},
            "widgets_values": [],
        }  # fmt: skip
        return {"id": identity, "revision": 0, "last_node_id": 1, "last_link_id": 0, "nodes": [node], "links": [],
                "groups": [], "version": 0.4, "config": {}, "extra": {},
                "definitions": {"subgraphs": [definition]}}  # fmt: skip

    def _definition(self, identity: str, name: str) -> dict[str, Any]:
        inner = self.graph.workflow()
        nodes = {node["id"]: node for node in inner["nodes"]}
        links = [dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
                 for link in inner["links"]]  # fmt: skip
        right = max(node["pos"][0] + node["size"][0] for node in inner["nodes"])
        inputs, outputs = [], []
        for place, (label, node, field_name) in enumerate(self.inputs):
            target = nodes[node.number]
            slot = next(i for i, entry in enumerate(target["inputs"]) if entry["name"] == field_name)
            entry = target["inputs"][slot]
            entry["link"] = len(links) + 1
            links.append({"id": len(links) + 1, "origin_id": ENTRY, "origin_slot": place, "target_id": node.number,
                          "target_slot": slot, "type": entry["type"]})  # fmt: skip
            inputs.append(_end(identity, label, entry["type"], len(links), [-80, 20 + 20 * place]))
        for place, (label, (origin, slot)) in enumerate(self.outputs):
            source = nodes[origin]["outputs"][slot]
            source["links"] = [*(source["links"] or []), len(links) + 1]
            links.append({"id": len(links) + 1, "origin_id": origin, "origin_slot": slot, "target_id": EXIT,
                          "target_slot": place, "type": source["type"]})  # fmt: skip
            outputs.append(_end(identity, label, source["type"], len(links), [right + 120, 20 + 20 * place]))
        return {
            "id": identity, "version": 1, "revision": 0, "name": name, "config": {}, "widgets": [], "extra": {},
            "state": {"lastGroupId": len(inner["groups"]), "lastNodeId": inner["last_node_id"],
                      "lastLinkId": len(links), "lastRerouteId": 0},
            "inputNode": {"id": ENTRY, "bounding": [-180, 0, 120, 40 + 20 * len(inputs)]},
            "outputNode": {"id": EXIT, "bounding": [right + 100, 0, 120, 40 + 20 * len(outputs)]},
            "inputs": inputs, "outputs": outputs, "nodes": inner["nodes"], "groups": inner["groups"], "links": links,
        }  # fmt: skip


def _end(identity: str, label: str, kind: str, link: int, place: list[float]) -> dict[str, Any]:
    made = uuid.uuid5(uuid.UUID(identity), f"{label} {link}")
    return {"id": str(made), "name": label, "type": kind, "linkIds": [link], "label": label, "pos": place}
