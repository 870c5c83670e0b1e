"""What users do: drop a shipped workflow on the canvas, press Run, see the clip in the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.run.edit import nodes_of, set_everywhere
from devtools.run.home import ROOT
from devtools.run.server import ComfyServer
from devtools.run.workflow import Prompt
from tests.browser.canvas import (
    ADD,
    AS_PROMPT,
    CHANGE,
    DROP,
    FIT,
    GRAPH,
    OPEN_HELP,
    PICTURED,
    UNLINK,
    animation_in,
    clip_in,
    complaints,
    drop,
    keep_picture,
    press_run,
)
from tests.browser.conftest import WORKFLOWS, opened, workflows
from tests.host.quick import CLIPS, changes, graph_prompt, quickened


@pytest.fixture(scope="module")
def front_end(browser: Any, server: ComfyServer) -> Iterator[Any]:
    """The front end, loaded once."""
    with opened(browser, server) as page:
        yield page


@pytest.fixture
def page(front_end: Any) -> Any:
    """The front end, without collected errors."""
    front_end.faults.clear()
    return front_end


def test_what_is_missing_is_said_and_where_it_is(page: Any, artifacts: Path) -> None:
    """For a missing checkpoint, the dialog names the folder and the file, and offers its address."""
    text = (ROOT / "workflows" / "40 Noise prior on SVD.json").read_text(encoding="utf-8")
    page.evaluate(DROP, ["absent.json", text.replace("svd.safetensors", "absent.safetensors")])
    dialog = page.locator(".p-dialog")
    dialog.get_by_text("checkpoints / absent.safetensors").wait_for()
    assert dialog.get_by_role("button", name="Copy URL").is_visible()
    page.screenshot(path=artifacts / "front_end_missing.png")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_every_node_is_in_the_menu_with_its_help_page(
    page: Any, server: ComfyServer, artifacts: Path
) -> None:
    page.keyboard.press("n")
    search = page.get_by_placeholder("Search Nodes").first
    search.fill("MicroCinema")
    ours = [info for name, info in server.object_info().items() if name.startswith("MicroCinema")]
    for info in ours:
        page.get_by_text(info["display_name"], exact=True).first.wait_for()
    page.get_by_text("Subgraph Blueprints").first.wait_for()
    keep_picture(page, artifacts / "front_end_menu.png")
    page.locator(".tree-leaf, .p-tree-node-leaf").filter(has_text="Sampler").first.hover()
    page.locator(".tree-leaf, .p-tree-node-leaf").filter(has_text="Sampler").first.locator(
        "button"
    ).last.click()
    for info in ours:
        page.evaluate(OPEN_HELP, info["name"])
        page.wait_for_function(PICTURED, arg=f"{info['name']}.png")
        keep_picture(page, artifacts / f"help_{info['name']}.png")
    page.keyboard.press("n")
    assert complaints(page) == []


@pytest.mark.parametrize(
    "file",
    workflows(in_every_run=("13",)),
)
def test_a_dropped_workflow_runs_and_shows_its_clip(
    page: Any, server: ComfyServer, artifacts: Path, file: Path
) -> None:
    known = server.object_info()
    nodes = drop(page, file)
    assert complaints(page) == []
    assert not [node["type"] for node in nodes if node["type"] not in known and "Note" not in node["type"]]
    prompt, quick = (graph_prompt(file.stem, known) for _ in range(2))
    assert known_inputs(page.evaluate(AS_PROMPT), known) == known_inputs(prompt, known)
    page.evaluate(CHANGE, changes(prompt, quickened(quick, file.stem)))
    assert (press_run(page), complaints(page)) == ("execution_success", [])
    assert not [node for node in page.evaluate(GRAPH) if node["errors"]]
    clip = clip_in(page, "SaveVideo", "output")
    frames, fps, side = CLIPS[file.stem]
    assert (clip["width"], clip["height"]) == (side, side)
    assert animation_in(page, "MicroCinemaFrameCombine") == {"width": side, "height": side}
    assert clip["seconds"] == pytest.approx(frames / fps, abs=0.1)
    keep_picture(page, artifacts / f"clip_{file.stem}.png")
    page.evaluate(FIT)
    keep_picture(page, artifacts / f"graph_{file.stem}.png")
    server.free()


def known_inputs(prompt: Prompt, schemas: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return each node's class and inputs that the host declares and shows.

    The front end adds inputs of its own (a video's preview), and later hosts hide some (the codec of Save Video).
    """
    inputs = {key: schemas[node["class_type"]]["input"] for key, node in prompt.items()}
    kinds = {key: {**groups["required"], **groups.get("optional", {})} for key, groups in inputs.items()}
    return {
        key: (
            node["class_type"],
            {name: node["inputs"][name] for name in node["inputs"] if shown(kinds[key].get(name))},
        )
        for key, node in prompt.items()
    }


def shown(declared: list[Any] | None) -> bool:
    """Return whether a declared input is not hidden."""
    return declared is not None and not (len(declared) > 1 and declared[1].get("hidden"))


def test_an_error_is_a_sentence(page: Any, server: ComfyServer, artifacts: Path) -> None:
    file = ROOT / "workflows" / "10 Start here - picture to video (mini).json"
    drop(page, file)
    prompt = graph_prompt(file.stem, server.object_info())
    (base,) = (key for key, node in prompt.items() if node["inputs"].get("role") == "base")
    page.evaluate(CHANGE, {base: {"role": "tsr"}})
    assert press_run(page) == "execution_error"
    page.locator(".p-dialog").get_by_text("this file's role is 'base'").first.wait_for()
    keep_picture(page, artifacts / "front_end_error.png")
    page.keyboard.press("Escape")
    page.locator(".p-dialog").wait_for(state="hidden")


@pytest.mark.parametrize(
    ("workflow", "kind", "name"),
    [
        ("10 Start here - picture to video (mini)", "MicroCinemaCentreFrame", "image"),
        ("10 Start here - picture to video (mini)", "MicroCinemaSampler", "centre_frame"),
        ("10 Start here - picture to video (mini)", "MicroCinemaTSR", "key_frames"),
        ("10 Start here - picture to video (mini)", "MicroCinemaFrameCombine", "images"),
        ("11 Text to video (mini)", "MicroCinemaSampler", "model"),
    ],
)
def test_a_forgotten_link_is_no_success(
    page: Any, artifacts: Path, workflow: str, kind: str, name: str
) -> None:
    """Nothing runs that leaves the result out, and the node without the link is named."""
    drop(page, ROOT / "workflows" / f"{workflow}.json")
    page.evaluate(UNLINK, [kind, name])
    assert press_run(page) != "execution_success"
    page.locator(".p-dialog").get_by_text(f"{kind}:").first.wait_for()
    page.locator(".p-dialog").get_by_text("Required input is missing").first.wait_for()
    keep_picture(page, artifacts / f"front_end_forgotten_{kind}_{name}.png")
    page.keyboard.press("Escape")
    page.locator(".p-dialog").wait_for(state="hidden")


def test_a_wrong_clip_is_named(page: Any, artifacts: Path) -> None:
    """A prompt that another family's CLIP encoded: the sentence says which one to connect."""
    drop(page, ROOT / "workflows" / "10 Start here - picture to video (mini).json")
    other = {"ckpt_name": "v2-1_512-ema-pruned.safetensors"}
    page.evaluate(ADD, ["CheckpointLoaderSimple", other, 1, "CLIPTextEncode", "clip"])
    assert press_run(page) == "execution_error"
    page.locator(".p-dialog").get_by_text("CLIP of this model's own family").first.wait_for()
    keep_picture(page, artifacts / "front_end_wrong_clip.png")
    page.keyboard.press("Escape")
    page.locator(".p-dialog").wait_for(state="hidden")


def test_the_blueprints_make_a_video(page: Any, server: ComfyServer) -> None:
    """The prompt of both blueprints in a row runs."""
    prompt: Prompt = {}
    for name in ("MicroCinema Picture to Key Frames", "MicroCinema to 32 fps"):
        drop(page, ROOT / "subgraphs" / f"{name}.json")
        assert complaints(page) == []
        inner = json.dumps(page.evaluate(AS_PROMPT))
        prompt |= json.loads(inner.replace('"1:', f'"{name}:'))
    (sampler,), (tsr,), (*_, frames) = (
        [key for key, node in prompt.items() if node["class_type"] == kind]
        for kind in ("MicroCinemaSampler", "MicroCinemaTSR", "VAEDecode")
    )
    prompt["picture"] = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
    nodes_of(prompt, "MicroCinemaCentreFrame")[0]["inputs"]["image"] = ["picture", 0]
    prompt[tsr]["inputs"] |= {"key_frames": [sampler, 0], "fps": [sampler, 1]}
    settings = {"repeat": 1, "ping_pong": False, "cross_fade": 0, "colour_strength": 0.0}
    clip = {"images": [frames, 0], "fps": [tsr, 1], **settings}
    prompt["clip"] = {"class_type": "MicroCinemaFrameCombine", "inputs": clip}
    set_everywhere(prompt, ("steps",), 1)
    assert server.run(prompt)["clip"]["text"][0].startswith("129 frames at 32 a second")


def test_the_workflows_are_templates(page: Any, artifacts: Path) -> None:
    page.get_by_role("button", name="Templates").first.click()
    page.locator(".p-dialog").get_by_text("microcinema", exact=False).first.click()
    for file in WORKFLOWS:
        page.locator(".p-dialog").get_by_text(file.stem, exact=True).first.wait_for()
    keep_picture(page, artifacts / "front_end_templates.png")
    page.locator(".p-dialog").get_by_text("10 Start here - picture to video (mini)", exact=True).first.click()
    page.wait_for_function("() => app.graph._nodes.some(node => node.type === 'MicroCinemaCentreFrame')")
    page.locator(".p-dialog").wait_for(state="hidden")
    page.wait_for_timeout(1500)
    assert complaints(page) == []
