"""Write the gallery: `python3 dev.py python -m devtools.release.gallery`.

Workflows that are described here are built anew; those that are not keep what they are, and get the inputs that their
nodes have gained. Each also becomes a prompt in the API's format, for scripts, in `workflows/api`. The mini models'
settings are those in image_to_video_mini and text_to_video_mini.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ...run.home import ROOT, Problem, say
from ...run.host import find_host
from ...run.server import ComfyServer
from ...run.workflow import to_prompt
from .blueprints import BLUEPRINTS, workflow
from .existing import bring_up_to_date, read, settings
from .graph import Graph, Schemas
from .parts import Mini
from .recipes import NOTES, RECIPES

FOLDER, SUBGRAPHS = ROOT / "workflows", ROOT / "subgraphs"


def main() -> int:
    """Run the command line."""
    argparse.ArgumentParser(
        prog="python -m devtools.release.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        with ComfyServer(sys.executable, find_host()) as server:
            files = all_files(server.object_info())
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    for name, content in files.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(content, encoding="ascii", newline="\n")
        say(name)
    return 0


def all_files(schemas: Schemas) -> dict[str, str]:
    """Return the text of every workflow, script and blueprint, by its path in the pack."""
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
    """Return every workflow by name."""
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


def mini_settings(schemas: Schemas) -> Mini:
    """Return the mini models' settings, as the workflows that are kept have them."""
    film, text = read(FOLDER / "image_to_video_mini.json"), read(FOLDER / "text_to_video_mini.json")
    image = settings(text, "KSampler", schemas)
    del image["denoise"]
    return Mini(
        image, settings(film, "MicroCinemaSampler", schemas), settings(film, "MicroCinemaTSR", schemas)
    )


def _text(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
