"""Every shipped workflow, unchanged, through the real host, and the files that the host serves for the pack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from PIL import Image

from devtools.release.gallery.models import metadata
from devtools.run.demo import measure, saved_video
from devtools.run.edit import set_everywhere, set_text
from devtools.run.home import ROOT
from devtools.run.host import VERSION
from devtools.run.server import ComfyServer
from devtools.run.workflow import Prompt, to_prompt
from tests.host.quick import CLIPS, graph_prompt, quickened
from tests.host.weight_files import write_what_workflows_name

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
WEIGHTS = sorted((ROOT / "weights").glob("mini_*.safetensors"))
PLAIN = {"MarkdownNote", "Note", "Reroute"}

each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def ready_host(host: ComfyServer) -> ComfyServer:
    """The host, with every file that the workflows name: the shipped weights, or small ones in their place."""
    write_what_workflows_name(host.models_dir)
    Image.radial_gradient("L").resize((300, 200)).convert("RGB").save(host.input_dir / "example.png")
    return host


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def quick(host: ComfyServer, name: str) -> Prompt:
    """Return the file's workflow with quick settings."""
    return quickened(graph_prompt(name, host.object_info()), name)


def test_the_scripts_of_all_are_run() -> None:
    """By test_gallery.py."""
    assert {file.stem for file in WORKFLOWS} == set(CLIPS)


def test_an_empty_prompt_and_another_size_run(ready_host: ComfyServer) -> None:
    prompt = quick(ready_host, "10 Start here - picture to video (mini)")
    set_text(prompt, "")
    set_everywhere(prompt, ("width",), 96)
    set_everywhere(prompt, ("height",), 60)
    set_everywhere(prompt, ("rounds",), 1)
    outputs = ready_host.run(prompt)
    video = measure(ready_host.output_dir / saved_video(outputs))
    assert (video["frames"], video["fps"], video["width"], video["height"]) == (33, 8.0, 96, 64)


def test_the_same_seed_gives_the_same_video(ready_host: ComfyServer) -> None:
    def frames() -> bytes:
        ready_host.free()
        prompt = quick(ready_host, "14 Between two pictures (mini)")
        set_everywhere(prompt, ("rounds",), 1)
        return (ready_host.output_dir / saved_video(ready_host.run(prompt))).read_bytes()

    assert frames() == frames()


@each_workflow
def test_it_is_what_the_front_end_saves(ready_host: ComfyServer, file: Path) -> None:
    """Links, slots and widgets agree with each other and with the host's schemas."""
    workflow, schemas = read(file), ready_host.object_info()
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert workflow["version"] == 0.4
    assert len(nodes) == len(workflow["nodes"]) and max(nodes) == workflow["last_node_id"]
    assert any(node["type"] == "MarkdownNote" for node in nodes.values()), "a workflow explains itself"
    for number, origin, out, target, into, kind in workflow["links"]:
        assert number in nodes[origin]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == number
        assert kind == nodes[origin]["outputs"][out]["type"]
    for node in nodes.values():
        if node["type"] not in PLAIN:
            check_node(node, schemas[node["type"]])


def check_node(node: dict[str, Any], schema: dict[str, Any]) -> None:
    """Slots by name and type, and every choice among the host's own options (files apart).

    A later host may have further inputs, hidden or optional, and further outputs behind the old ones.
    """
    known = {**schema["input"]["required"], **schema["input"].get("optional", {})}
    assert set(schema["input"]["required"]) <= {slot["name"] for slot in node["inputs"]} <= set(known), node[
        "type"
    ]
    outputs = [slot["type"] for slot in node["outputs"]]
    assert schema["output"][: len(outputs)] == outputs, node["type"]
    missing = [s["name"] for s in node["inputs"] if s["link"] is None and "widget" not in s]
    assert not set(missing) & set(schema["input"]["required"]), f"{node['type']} lacks {missing}"
    widgets = to_prompt({"nodes": [node]}, {node["type"]: schema})[str(node["id"])]["inputs"]
    names = {name.split(".")[-1] for name in widgets}  # a later host's "format.codec" was "codec"
    assert names == {slot["name"] for slot in node["inputs"] if "widget" in slot}, node["type"]


@each_workflow
def test_titles_keep_the_nodes_own_names(ready_host: ComfyServer, file: Path) -> None:
    if ready_host.host.version != VERSION:
        pytest.skip("the titles have the names of the host that CI runs on")
    schemas = ready_host.object_info()
    for node in read(file)["nodes"]:
        if node["type"] not in PLAIN and "title" in node:
            name = schemas[node["type"]]["display_name"] or node["type"]
            assert node["title"].startswith((f"{name}: ", f"{name.partition('(')[0]}(")), node["title"]


@each_workflow
def test_it_names_no_address_but_of_published_weights(file: Path) -> None:
    """Each address is in the properties of the node that loads the file, where the missing-models dialog reads it."""
    text = file.read_text(encoding="utf-8")
    assert "/home/" not in text and "\\\\" not in text
    nodes = [node for node in read(file)["nodes"] if "widgets_values" in node]
    named = [model for node in nodes for model in node["properties"].get("models", [])]
    assert text.count("http") == len(named)
    for node in nodes:
        assert node["properties"].get("models", []) == metadata(node["widgets_values"])


def test_they_are_in_the_template_browser(ready_host: ComfyServer) -> None:
    assert set(ready_host.get("/workflow_templates")["microcinema"]) == {file.stem for file in WORKFLOWS}
    for file in WORKFLOWS:
        assert ready_host.get(f"/api/workflow_templates/microcinema/{quote(file.name)}") == read(file)


@pytest.mark.skipif(
    len(WEIGHTS) < 3, reason="thumbnails are made with the shipped weights, which are not here"
)
@each_workflow
def test_it_has_a_thumbnail(ready_host: ComfyServer, file: Path) -> None:
    url = f"{ready_host.url}/api/workflow_templates/microcinema/{quote(file.stem)}.jpg"
    with urlopen(url) as answer, Image.open(answer) as picture:
        assert picture.format == "JPEG" and min(picture.size) >= 256


def test_every_node_has_a_page_with_a_picture_and_tooltips(ready_host: ComfyServer) -> None:
    ours = {name: info for name, info in ready_host.object_info().items() if name.startswith("MicroCinema")}
    assert len(ours) >= 10
    for name, info in ours.items():
        assert info["category"] == "MicroCinema"
        with urlopen(f"{ready_host.url}/extensions/microcinema/docs/{name}.md") as answer:
            page = answer.read().decode()
        assert page.startswith(f"# {info['display_name']}"), name
        assert f"]({name}.png)" in page, name
        with (
            urlopen(f"{ready_host.url}/extensions/microcinema/docs/{name}.png") as answer,
            Image.open(answer) as picture,
        ):
            assert picture.format == "PNG" and picture.width > 300
        inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
        for field, (_, options) in inputs.items():
            assert options.get("tooltip"), f"{name}.{field} has no tooltip"
            assert f"`{field}`" in page, f"the page of {name} does not speak of {field}"
