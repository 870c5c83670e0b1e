"""A person's way: drop a shipped workflow on the canvas, press Run, see the clip in the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.home import ROOT
from devtools.server import ComfyServer

TIMEOUT = 600_000  # milliseconds; a busy machine without a GPU draws slowly
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))

DROP = """async ([name, text]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([text], name, {type: "application/json"}));
    const canvas = document.querySelector("#graph-canvas");
    const box = canvas.getBoundingClientRect();
    const at = {clientX: box.x + box.width / 2, clientY: box.y + box.height / 2};
    for (const kind of ["dragenter", "dragover", "drop"])
        canvas.dispatchEvent(
            new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: transfer, ...at}));
}"""

GRAPH = "() => app.graph._nodes.map(node => ({type: node.type, errors: Boolean(node.has_errors)}))"

TWO_STEPS = """() => {
    for (const node of app.graph._nodes)
        for (const widget of node.widgets ?? [])
            if (widget.name === "steps") widget.value = 2;
}"""

LOOK_AT = """([kind, scale]) => {
    const node = app.graph._nodes.find(node => node.type === kind);
    const view = app.canvas.ds;
    const width = app.canvas.canvas.clientWidth / scale, height = app.canvas.canvas.clientHeight / scale;
    view.scale = scale;
    view.offset = [
        width / 2 - node.pos[0] - node.size[0] / 2,
        height / 2 - node.pos[1] - node.size[1] / 2];
    app.canvas.setDirty(true, true);
}"""

SHOWN = """folder => {
    const videos = [...document.querySelectorAll(".dom-widget video, .lg-node video")];
    const clip = videos.find(video => video.src.includes("type=" + folder));
    return clip && clip.readyState >= 2 && clip.offsetWidth > 0
        ? {width: clip.videoWidth, height: clip.videoHeight, seconds: clip.duration} : null;
}"""


@pytest.fixture(scope="module")
def front_end(browser: Any, server: ComfyServer) -> Iterator[Any]:
    """The front end in a fresh profile, loaded once; `faults` collects uncaught errors."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(server.url, wait_until="commit")
    page.wait_for_function("() => window.app?.graph && document.querySelector('#graph-canvas')")
    page.get_by_role("button", name="Run", exact=True).wait_for()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    yield page
    context.close()


@pytest.fixture
def page(front_end: Any) -> Any:
    """The front end, nothing held against it."""
    front_end.faults.clear()
    return front_end


def drop(page: Any, file: Path) -> list[dict[str, Any]]:
    """Drop a workflow on the canvas; the nodes that the graph then has."""
    text = file.read_text(encoding="utf-8")
    page.evaluate(DROP, [file.name, text])
    page.wait_for_function("id => app.graph.id === id", arg=json.loads(text)["id"])
    page.wait_for_timeout(1500)  # dialogs and toasts come after the graph
    return page.evaluate(GRAPH)


def complaints(page: Any) -> list[str]:
    """Dialogs (missing nodes, missing models, errors), toasts, and uncaught errors."""
    shown = page.locator(".p-dialog, .p-toast-message, .comfy-missing-nodes, .comfy-missing-models")
    return [*shown.all_inner_texts(), *page.faults]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_dropped_workflow_opens_without_complaint(page: Any, server: ComfyServer, file: Path) -> None:
    known = server.object_info()
    nodes = drop(page, file)
    assert complaints(page) == []
    assert not [node["type"] for node in nodes if node["type"] not in known and "Note" not in node["type"]]
    assert not [node["type"] for node in nodes if node["errors"]]


def test_run_shows_the_clip_in_the_node(page: Any, artifacts: Path) -> None:
    drop(page, ROOT / "workflows" / "text_to_video_mini.json")
    page.evaluate(TWO_STEPS)
    page.get_by_role("button", name="Run", exact=True).click()
    page.evaluate(LOOK_AT, ["MicroCinemaFrameCombine", 0.9])
    clip = page.wait_for_function(SHOWN, arg="temp").json_value()  # Frame Combine's
    assert page.wait_for_function(SHOWN, arg="output").json_value() == clip  # Save Video's
    page.wait_for_timeout(1000)
    page.screenshot(path=artifacts / "front_end_clip.png")
    assert (clip["width"], clip["height"]) == (128, 128)
    assert clip["seconds"] == pytest.approx(129 / 32, abs=0.1)
    assert complaints(page) == []
    assert not [node for node in page.evaluate(GRAPH) if node["errors"]]
    page.evaluate(LOOK_AT, ["MicroCinemaSampler", 0.55])
    page.wait_for_timeout(1000)
    page.screenshot(path=artifacts / "front_end_graph.png")


def test_the_workflows_are_templates(page: Any, artifacts: Path) -> None:
    page.get_by_role("button", name="Templates").first.click()
    page.locator(".p-dialog").get_by_text("microcinema", exact=False).first.click()
    for file in WORKFLOWS:
        page.locator(".p-dialog").get_by_text(file.stem, exact=True).first.wait_for()
    page.wait_for_timeout(1000)
    page.screenshot(path=artifacts / "front_end_templates.png")
    page.locator(".p-dialog").get_by_text("image_to_video_mini", exact=True).first.click()
    page.wait_for_function("() => app.graph._nodes.some(node => node.type === 'MicroCinemaCentreFrame')")
    page.locator(".p-dialog").wait_for(state="hidden")
    page.wait_for_timeout(1500)
    assert complaints(page) == []
