"""Translations of the nodes: complete, up to date and served by the host."""

from __future__ import annotations

import pytest

from devtools.release import locales
from devtools.run.home import Problem
from devtools.run.server import ComfyServer


def test_the_files_are_what_the_nodes_and_the_translations_make(host: ComfyServer) -> None:
    """Fails for a new input, a changed tooltip or a removed node, in every language."""
    written = {
        file.relative_to(locales.FOLDER).as_posix(): file.read_text(encoding="utf-8")
        for file in locales.FOLDER.rglob("*")
        if file.is_file()
    }
    assert written == locales.all_files(host.object_info())


def test_every_node_input_and_output_has_a_name_and_a_tooltip(host: ComfyServer) -> None:
    served = host.get("/i18n")
    nodes = {name: info for name, info in host.object_info().items() if name.startswith("MicroCinema")}
    for language in ("en", *locales.LANGUAGES):
        definitions = served[language]["nodeDefs"]
        for name, info in nodes.items():
            entry = definitions[name]
            assert entry["display_name"] and entry["description"]
            fields = [*info["input"].get("required", {}), *info["input"].get("optional", {})]
            assert list(entry["inputs"]) == fields
            assert len(entry["outputs"]) == len(info["output"])
            for slot in (*entry["inputs"].values(), *entry["outputs"].values()):
                assert slot["name"] and slot["tooltip"], f"{language}: {name}"
        assert (
            served[language]["nodeCategories"]["MicroCinema"] and served[language]["dataTypes"]["APPEARNET"]
        )


@pytest.mark.parametrize("change", ["lacking", "stale"])
def test_what_lacks_and_what_is_stale_is_named(host: ComfyServer, change: str) -> None:
    catalogue = locales.read_catalogue("de")
    if change == "lacking":
        del catalogue["rounds"]
    else:
        catalogue["a sentence of an input that is gone"] = "ein Satz"
    with pytest.raises(Problem, match=r"'rounds'" if change == "lacking" else "input that is gone"):
        locales.node_definitions(host.object_info(), catalogue, "de")
