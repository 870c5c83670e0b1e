"""Workflows that are already there: slots that their nodes have gained since, and scripts made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...run.workflow import NOTES
from .graph import Schemas, default_value, input_slots, output_slots
from .models import metadata


def read(file: Path) -> dict[str, Any]:
    """Return a workflow file's content."""
    return dict(json.loads(file.read_text(encoding="utf-8")))


def bring_up_to_date(workflow: dict[str, Any], schemas: Schemas) -> dict[str, Any]:
    """Give nodes the inputs and outputs that were added at their ends, and loaders what says where their files are."""
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        info = schemas[node["type"]]
        there = {slot["name"] for slot in node["inputs"]}
        specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        for name, slot in input_slots(info):
            if name not in there:
                node["inputs"].append(slot)
                if "widget" in slot:
                    node["widgets_values"].append(default_value(specs[name]))
        node["outputs"] += output_slots(info)[len(node["outputs"]) :]
        if models := metadata(node["widgets_values"]):
            node["properties"]["models"] = models
    return workflow


def settings(workflow: dict[str, Any], kind: str, schemas: Schemas) -> dict[str, Any]:
    """Return the widget values, by name, of a workflow's first node of class `kind`."""
    from ...run.workflow import widget_values

    node = next(node for node in workflow["nodes"] if node["type"] == kind)
    return widget_values(node, schemas[kind])
