"""The gallery's API workflows, run through the real host, and a check that the shipped files are up to date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.release.gallery.__main__ import all_files
from devtools.release.gallery.blueprints import BLUEPRINTS
from devtools.release.gallery.templates import TEMPLATES
from devtools.run.demo import measure
from devtools.run.edit import set_everywhere
from devtools.run.home import ROOT
from devtools.run.host import VERSION
from devtools.run.server import ComfyServer
from devtools.run.workflow import Prompt, widget_values
from tests.host.gallery_files import write_gallery_files
from tests.host.quick import CLIPS, quickened, script
from tests.host.video_model_files import write_video_models
from tests.host.weight_files import write_what_workflows_name


@pytest.fixture(scope="module")
def gallery_host(host: ComfyServer, comfy_in_process: Path) -> ComfyServer:
    """The host, with a stand-in for every published file."""
    write_what_workflows_name(host.models_dir)
    write_gallery_files(host.models_dir, host.input_dir)
    write_video_models(host.models_dir)
    Image.radial_gradient("L").resize((300, 200)).convert("RGB").save(host.input_dir / "example.png")
    return host


def saved_video(host: ComfyServer, prompt: Prompt) -> dict[str, Any]:
    outputs = host.run(prompt)
    (file,) = next(
        outputs[key]["images"] for key, node in prompt.items() if node["class_type"] == "SaveVideo"
    )
    return measure(host.output_dir / file["subfolder"] / file["filename"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_script_runs(gallery_host: ComfyServer, name: str) -> None:
    video = saved_video(gallery_host, quickened(script(name), name))
    frames, fps, side = CLIPS[name]
    assert (video["frames"], video["fps"], video["width"], video["height"]) == (frames, fps, side, side)
    gallery_host.free()


def test_what_ships_is_what_is_described(host: ComfyServer) -> None:
    """Workflows, scripts and blueprints; `python3 dev.py python -m devtools.release.gallery` writes them."""
    if host.host.version != VERSION:
        pytest.skip("the files are written with the schemas of the host that CI runs on")
    described = all_files(host.object_info())
    folders = (
        ROOT / "workflows",
        ROOT / "workflows" / "api",
        ROOT / "workflows" / "newer",
        ROOT / "subgraphs",
    )
    there = {
        file.relative_to(ROOT).as_posix(): file.read_text("utf-8")
        for f in folders
        for file in f.glob("*.json")
    }
    assert set(there) == set(described)
    for name, text in described.items():
        assert json.loads(there[name]) == json.loads(text), name


def test_the_blueprints_are_served_and_whole(host: ComfyServer) -> None:
    """Every link of a blueprint joins two slots of one type, and both list the link."""
    served = {entry["name"]: number for number, entry in host.get("/global_subgraphs").items()}
    schemas = host.object_info()
    for name in BLUEPRINTS:
        data = json.loads(host.get(f"/global_subgraphs/{served[name]}")["data"])
        (definition,) = data["definitions"]["subgraphs"]
        assert data["nodes"][0]["type"] == definition["id"] and definition["name"] == name
        nodes = {node["id"]: node for node in definition["nodes"]}
        for link in definition["links"]:
            if link["origin_id"] > 0:
                slot = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
                assert link["id"] in slot["links"] and slot["type"] == link["type"]
            if link["target_id"] > 0:
                slot = nodes[link["target_id"]]["inputs"][link["target_slot"]]
                assert link["id"] == slot["link"] and slot["type"] == link["type"]
        for number, widget in data["nodes"][0]["properties"]["proxyWidgets"]:
            assert widget in [slot["name"] for slot in nodes[int(number)]["inputs"] if "widget" in slot]
        assert all(node["type"] in schemas for node in nodes.values())


def inner_prompt(name: str, schemas: dict[str, Any], given: dict[str, list[Any]], part: str) -> Prompt:
    """Return the nodes of a blueprint as a prompt, its outer inputs connected to `given`; `part` begins their keys."""
    data = json.loads((ROOT / "subgraphs" / f"{name}.json").read_text("utf-8"))
    (definition,) = data["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in definition["nodes"]}
    outer = {slot["linkIds"][0]: given[slot["name"]] for slot in definition["inputs"]}
    prompt: Prompt = {
        f"{part}{number}": {"class_type": node["type"], "inputs": widget_values(node, schemas[node["type"]])}
        for number, node in nodes.items()
    }
    for link in definition["links"]:
        if link["target_id"] > 0:
            slot = nodes[link["target_id"]]["inputs"][link["target_slot"]]["name"]
            source = outer.get(link["id"], [f"{part}{link['origin_id']}", link["origin_slot"]])
            prompt[f"{part}{link['target_id']}"]["inputs"][slot] = source
    return prompt


def test_the_blueprint_for_longer_videos_goes_on_from_the_last_frame(gallery_host: ComfyServer) -> None:
    """Twice in a row: 3 + 2 + 2 frames."""
    title = "22 First and last frame (SparseCtrl)"
    prompt = quickened(script(title), title)
    (start,) = (key for key, node in prompt.items() if node["class_type"] == "MicroCinemaSampler")
    (decode,) = (key for key, node in prompt.items() if node["class_type"] == "VAEDecode")
    sockets = {name: prompt[start]["inputs"][name] for name in ("model", "appearnet", "positive", "negative")}
    frames = last_part = [start, 0]
    for part in ("a", "b"):
        given = {**sockets, "frames": frames, "last_part": last_part}
        inner = inner_prompt("MicroCinema Longer Video", gallery_host.object_info(), given, part)
        (sampler,) = (key for key, node in inner.items() if node["class_type"] == "MicroCinemaSampler")
        (joined,) = (key for key, node in inner.items() if node["class_type"] == "LatentBatch")
        inner[sampler]["inputs"] |= {"frames": 3, "steps": 2}
        frames, last_part = [joined, 0], [sampler, 0]
        prompt |= inner
    prompt[decode]["inputs"]["samples"] = frames
    assert saved_video(gallery_host, prompt)["frames"] == 7


@pytest.mark.parametrize(
    ("name", "inputs", "frames"),
    [
        ("MicroCinema Picture to Video", ("image",), 33),
        ("MicroCinema Picture to Longer Video", ("image",), 65),
        ("MicroCinema First and Last Frame", ("first", "last"), 3),
    ],
)
def test_a_blueprint_makes_a_saved_video_of_pictures(
    gallery_host: ComfyServer, name: str, inputs: tuple[str, ...], frames: int
) -> None:
    """Load Image for each picture, the blueprint, Save Video; `rounds` is 1 for speed."""
    schemas = gallery_host.object_info()
    prompt = inner_prompt(name, schemas, {field: [field, 0] for field in inputs}, "inner")
    set_everywhere(prompt, ("steps",), 1)
    set_everywhere(prompt, ("rounds",), 1)
    if "First" in name:
        set_everywhere(prompt, ("frames",), 3)
        set_everywhere(prompt, ("width", "height"), 64)
    prompt |= {field: {"class_type": "LoadImage", "inputs": {"image": "example.png"}} for field in inputs}
    (film,) = (key for key, node in prompt.items() if node["class_type"] == "MicroCinemaFrameCombine")
    saving = {**widget_values({}, schemas["SaveVideo"]), "video": [film, 0], "filename_prefix": "blueprint"}
    prompt["save"] = {"class_type": "SaveVideo", "inputs": {**saving, "format": "auto", "codec": "auto"}}
    assert saved_video(gallery_host, prompt)["frames"] == frames
    gallery_host.free()


def test_the_prompt_of_a_blueprint_is_typed_once() -> None:
    for file in (ROOT / "subgraphs").glob("*.json"):
        graph = json.loads(file.read_text("utf-8"))
        shown = [widget for _, widget in graph["nodes"][0]["properties"]["proxyWidgets"]]
        inside = [node["type"] for node in graph["definitions"]["subgraphs"][0]["nodes"]]
        assert shown.count("text") == ("CLIPTextEncode" in inside), file.stem
