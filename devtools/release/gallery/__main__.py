"""Write the shipped workflows and blueprints: `python3 dev.py python -m devtools.release.gallery`.

Workflows with a recipe are rebuilt. The others are kept, and their nodes get the inputs that were added since. Each
workflow is also written as a prompt in the API format, for scripts, to `workflows/api`. The settings of the mini models
are those in image_to_video_mini and text_to_video_mini.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...run.home import ROOT
from ...run.workflow import NOTE_NODES, to_prompt, widget_values
from ..files import write_from_schemas
from .blueprints import BLUEPRINTS, workflow
from .graph import Graph, Schemas, default_value, input_slots, output_slots
from .models import metadata
from .notes import NOTES
from .parts import Mini
from .recipes import RECIPES

FOLDER = ROOT / "workflows"


def main() -> int:
    """Run the command line."""
    argparse.ArgumentParser(
        prog="python -m devtools.release.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    return write_from_schemas(all_files, ROOT, encoding="ascii")


def all_files(schemas: Schemas) -> dict[str, str]:
    """Return the content of every workflow, script and blueprint by its path in the pack."""
    built, files = workflows(schemas), {}
    for name, graph in built.items():
        files[f"workflows/{name}.json"] = _text(graph)
        files[f"workflows/api/{name}.json"] = _text(to_prompt(graph, schemas))
    mini = mini_settings(schemas)
    for name, make in BLUEPRINTS.items():
        blueprint = make(Graph(schemas, f"blueprint/{name}"), mini)
        files[f"subgraphs/{name}.json"] = _text(workflow(name, blueprint))
    return files


def workflows(schemas: Schemas) -> dict[str, dict[str, Any]]:
    """Return all workflows by name, in the front end's format."""
    mini = mini_settings(schemas)
    built = {}
    for name, recipe in RECIPES.items():
        graph = Graph(schemas, name, NOTES[name])
        recipe(graph, mini)
        built[name] = graph.workflow()
    for file in FOLDER.glob("*.json"):
        if file.stem not in built:
            built[file.stem] = bring_up_to_date(read(file), schemas)
    return dict(sorted(built.items()))


def read(file: Path) -> dict[str, Any]:
    """Return the content of a workflow file."""
    return dict(json.loads(file.read_text(encoding="utf-8")))


def bring_up_to_date(workflow: dict[str, Any], schemas: Schemas) -> dict[str, Any]:
    """Add inputs and outputs that a workflow's nodes gained since, and the addresses of published weights."""
    for node in workflow["nodes"]:
        if node["type"] in NOTE_NODES:
            continue
        info = schemas[node["type"]]
        present = {slot["name"] for slot in node["inputs"]}
        specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        for name, slot in input_slots(info):
            if name not in present:
                node["inputs"].append(slot)
                if "widget" in slot:
                    node["widgets_values"].append(default_value(specs[name]))
        node["outputs"] += output_slots(info)[len(node["outputs"]) :]
        if models := metadata(node["widgets_values"]):
            node["properties"]["models"] = models
    return workflow


def mini_settings(schemas: Schemas) -> Mini:
    """Return the mini models' settings, read from the workflows that are kept."""
    film, text = read(FOLDER / "image_to_video_mini.json"), read(FOLDER / "text_to_video_mini.json")
    image = node_settings(text, "KSampler", schemas)
    del image["denoise"]
    base, tsr = (node_settings(film, kind, schemas) for kind in ("MicroCinemaSampler", "MicroCinemaTSR"))
    return Mini(image, base, tsr)


def node_settings(workflow: dict[str, Any], kind: str, schemas: Schemas) -> dict[str, Any]:
    """Return the widget values, by input name, of the first node of class `kind`."""
    node = next(node for node in workflow["nodes"] if node["type"] == kind)
    return widget_values(node, schemas[kind])


def _text(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
