"""Write the shipped workflows and blueprints: `python3 dev.py python -m devtools.release.gallery`.

Each workflow is also written as a prompt in the API format, for scripts, to `workflows/api`.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ...run.home import ROOT
from ...run.workflow import to_prompt
from ..files import write_from_schemas
from .blueprints import BLUEPRINTS
from .graph import Graph, Schemas
from .newer import NEWER
from .newer import SCHEMAS as NEWER_SCHEMAS
from .templates import TEMPLATES


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
    files = {}
    for title, template in TEMPLATES.items():
        graph = template.graph(schemas, title).workflow()
        files[f"workflows/{title}.json"] = _text(graph)
        files[f"workflows/api/{title}.json"] = _text(to_prompt(graph, schemas))
    for title, template in NEWER.items():
        graph = template.graph({**schemas, **NEWER_SCHEMAS}, title).workflow()
        files[f"workflows/newer/{title}.json"] = _text(graph)
    for name, blueprint in BLUEPRINTS.items():
        made = blueprint.fill(Graph(schemas, f"blueprint/{name}", seed=blueprint.seed))
        files[f"subgraphs/{name}.json"] = _text(made.workflow(name))
    return files


def _text(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
