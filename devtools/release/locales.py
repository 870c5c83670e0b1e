"""Write the translations of the nodes: `python3 dev.py python -m devtools.release.locales`.

The files in `locales/` hold the names and tooltips of all nodes in seven languages. The English text is written in the
nodes and nowhere else. `devtools/release/translations/LANGUAGE.json` maps each English text to its translation. If the
English changes, its translation is missing until the map is updated, and this tool reports it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..run.home import ROOT, Problem
from .files import write_from_schemas

FOLDER = ROOT / "locales"
TRANSLATIONS = Path(__file__).with_name("translations")
LANGUAGES = ("de", "es", "fr", "ja", "ko", "zh")
"""Languages to translate to, besides English."""
UNTRANSLATED = frozenset({"appearnet", "cfg", "fps", "gamma", "lambda", "vae"})
"""Names that stay the same in every language, as do socket types in capitals (MODEL, VAE ...)."""

Translate = Callable[[str], str]
Schemas = Mapping[str, Any]


def main() -> int:
    """Run the command line; exit code 1 if a text has no translation."""
    argparse.ArgumentParser(
        prog="python -m devtools.release.locales",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    return write_from_schemas(all_files, FOLDER, encoding="utf-8")


def all_files(object_info: Schemas) -> dict[str, str]:
    """Return the content of every file under `locales/` by its path there.

    Args:
        object_info: the host's GET /object_info.

    Raises:
        Problem: a text without a translation, or a translation of no text; the message names them.
    """
    files = {}
    for language in ("en", *LANGUAGES):
        catalogue = None if language == "en" else read_catalogue(language)
        files[f"{language}/nodeDefs.json"] = _text(node_definitions(object_info, catalogue, language))
        files[f"{language}/main.json"] = _text(
            {"nodeCategories": {"MicroCinema": "MicroCinema"}, "dataTypes": {"APPEARNET": "APPEARNET"}}
        )
    return files


def read_catalogue(language: str) -> dict[str, str]:
    """Return the translations of a language, by the English text."""
    return dict(json.loads((TRANSLATIONS / f"{language}.json").read_text(encoding="utf-8")))


def node_definitions(
    object_info: Schemas, catalogue: Mapping[str, str] | None, language: str = "en"
) -> dict[str, Any]:
    """Return the content of `nodeDefs.json`: names and tooltips of every node of the pack.

    Args:
        object_info: the host's GET /object_info.
        catalogue: translations by the English text; None keeps the English.
        language: the catalogue's language, for the message.

    Raises:
        Problem: as for `all_files`.
    """
    used: set[str] = set()
    missing: list[str] = []

    def translate(text: str) -> str:
        if catalogue is None or text in UNTRANSLATED or text.isupper():
            return text
        used.add(text)
        if text not in catalogue:
            missing.append(text)
        return catalogue.get(text, text)

    nodes = {name: info for name, info in object_info.items() if name.startswith("MicroCinema")}
    definitions = {name: _node(info, translate) for name, info in sorted(nodes.items())}
    stale = sorted(set(catalogue or {}) - used)
    if missing or stale:
        raise Problem(
            f"devtools/release/translations/{language}.json has no translation of {sorted(set(missing))}, "
            f"and these of its texts are in no node: {stale}."
        )
    return definitions


def _node(info: Schemas, translate: Translate) -> dict[str, Any]:
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": translate(info["display_name"]),
        "description": translate(info["description"]),
        "inputs": {name: _slot(name, spec[1].get("tooltip"), translate) for name, spec in inputs.items()},
        "outputs": {str(place): _slot(name, tip, translate) for place, (name, tip) in enumerate(outputs)},
    }


def _slot(name: str, tooltip: str | None, translate: Translate) -> dict[str, str]:
    return {"name": translate(name), **({"tooltip": translate(tooltip)} if tooltip else {})}


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
