"""User actions on the front end's canvas, and what it then shows."""

from __future__ import annotations

import base64
import json
from itertools import combinations
from pathlib import Path
from typing import Any

DROP = """async ([name, content, type = "application/json"]) => {
    const bytes = type === "application/json" ? content : Uint8Array.from(atob(content), c => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type}));
    const canvas = document.querySelector("#graph-canvas");
    const box = canvas.getBoundingClientRect();
    const at = {clientX: box.x + box.width / 2, clientY: box.y + box.height / 2};
    for (const kind of ["dragenter", "dragover", "drop"])
        canvas.dispatchEvent(
            new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: transfer, ...at}));
}"""

BUILD = """nodes => {
    app.graph.clear();
    const made = [];
    for (const [type, given] of nodes) {
        const node = LiteGraph.createNode(type), place = made.length;
        node.pos = [(place % 4) * 450, Math.floor(place / 4) * 450];
        app.graph.add(node);
        made.push(node);
        for (const [name, value] of Object.entries(given))
            if (Array.isArray(value)) made[value[0]].connect(value[1], node, node.findInputSlot(name));
            else node.widgets.find(widget => widget.name === name).value = value;
    }
}"""
"""Builds a graph of [class, inputs by name], from left to right; a link is [place of the source, output]."""

ADD = """([type, given, output, kind, name]) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    for (const [widget, value] of Object.entries(given))
        node.widgets.find(other => other.name === widget).value = value;
    for (const target of app.graph._nodes.filter(other => other.type === kind))
        node.connect(output, target, target.findInputSlot(name));
}"""
"""Adds a node of a class with values, and connects an output of it to an input of all nodes of another class."""

UNLINK = """([kind, name]) => {
    const node = app.graph._nodes.find(node => node.type === kind);
    node.disconnectInput(node.findInputSlot(name));
}"""

NODE_BOXES = """() => [...document.querySelectorAll(".lg-node")].map(node => {
    const box = node.getBoundingClientRect();
    return [node.innerText.split("\\n")[0], box.left, box.top, box.right, box.bottom];
})"""
"""Title, left, top, right and bottom of every node of Nodes 2.0, whose nodes are elements of the page."""
ROUNDING = 2  # pixels

GRAPH = "() => app.graph._nodes.map(node => ({type: node.type, errors: Boolean(node.has_errors)}))"

AS_PROMPT = """async () => Object.fromEntries(Object.entries((await app.graphToPrompt()).output).map(
    ([key, node]) => [key, {class_type: node.class_type, inputs: node.inputs}]))"""

CHANGE = """changes => {
    for (const [id, values] of Object.entries(changes))
        for (const [name, value] of Object.entries(values))
            app.graph.getNodeById(id).widgets.find(widget => widget.name === name).value = value;
}"""

LISTEN = """() => {
    window.ends = [];
    for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
        app.api.addEventListener(kind, event => window.ends.push([kind, event.detail]));
}"""

ENDED = """() => window.ends.length > 0 || document.querySelector(".p-dialog, .p-toast-message")"""

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

FIT = """() => {
    const view = app.canvas.ds, nodes = app.graph._nodes;
    const left = Math.min(...nodes.map(node => node.pos[0])), top = Math.min(...nodes.map(node => node.pos[1]));
    const right = Math.max(...nodes.map(node => node.pos[0] + node.size[0]));
    const bottom = Math.max(...nodes.map(node => node.pos[1] + node.size[1]));
    const page = app.canvas.canvas;
    view.scale = 0.8 * Math.min(page.clientWidth / (right - left), page.clientHeight / (bottom - top));
    view.offset = [
        page.clientWidth / view.scale / 2 - (left + right) / 2,
        page.clientHeight / view.scale / 2 - (top + bottom) / 2];
    app.canvas.setDirty(true, true);
}"""

WIDGET = """([kind, name]) => {
    const node = app.graph._nodes.find(node => node.type === kind);
    const widget = node.widgets.find(widget => widget.name === name);
    const view = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
    const x = node.pos[0] + node.size[0] / 2, y = node.pos[1] + widget.last_y + 10;
    return [box.x + (x + view.offset[0]) * view.scale, box.y + (y + view.offset[1]) * view.scale];
}"""
"""Where the middle of a widget is on the page."""

OPEN_HELP = """name => {
    const stores = document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia._s;
    stores.get("nodeHelp").openHelp(stores.get("nodeDef").nodeDefsByName[name]);
}"""

PICTURED = """name =>
    [...document.querySelectorAll("img")].some(image => image.src.endsWith(name) && image.naturalWidth > 0)"""

SHOWN = """folder => {
    const videos = [...document.querySelectorAll(".dom-widget video, .lg-node video")];
    const clip = videos.find(video => video.src.includes("type=" + folder));
    return clip && clip.readyState >= 2 && clip.offsetWidth > 0
        ? {width: clip.videoWidth, height: clip.videoHeight, seconds: clip.duration} : null;
}"""

ANIMATED = """() => {
    const pictures = [...document.querySelectorAll(".dom-widget img, .lg-node img")];
    const shown = pictures.find(picture => picture.src.includes("MicroCinema_"));
    return shown?.naturalWidth > 0 && shown.offsetWidth > 0
        ? {width: shown.naturalWidth, height: shown.naturalHeight} : null;
}"""

LOAD_AGAIN = """() => {
    for (const node of app.graph._nodes) node.images = undefined;
    app.canvas.setDirty(true, true);
}"""


def clip_in(page: Any, kind: str, folder: str) -> dict[str, float]:
    """Show a node until it plays a clip, and return the clip's size and duration.

    The front end loads and draws only visible nodes. It gives up on a clip that does not load within twice 8 s, so on a
    busy machine the clip is requested again.

    Args:
        page: the front end.
        kind: the class of the node.
        folder: the host's folder of the clip ("output" or "temp").
    """
    return _shown_in(page, kind, SHOWN, folder)


def animation_in(page: Any, kind: str) -> dict[str, float]:
    """Show a node until it has an animated picture, and return the picture's size; otherwise as `clip_in`."""
    return _shown_in(page, kind, ANIMATED)


def _shown_in(page: Any, kind: str, script: str, argument: str | None = None) -> dict[str, float]:
    for second in range(200):
        page.evaluate(LOOK_AT, [kind, 0.9])
        page.wait_for_timeout(1000)
        if shown := page.evaluate(script, argument):
            return dict(shown)
        if second % 20 == 19:
            page.evaluate(LOAD_AGAIN)
    raise AssertionError(f"{kind} shows nothing of what it made")


def drop(page: Any, file: Path) -> list[dict[str, Any]]:
    """Drop a workflow on the canvas and return the nodes of the new graph."""
    text = file.read_text(encoding="utf-8")
    page.evaluate(DROP, [file.name, text])
    page.wait_for_function("id => app.graph.id === id", arg=json.loads(text)["id"])
    page.wait_for_timeout(1500)  # dialogs and toasts come after the graph
    return page.evaluate(GRAPH)


def drop_file(page: Any, file: Path, kind: str) -> None:
    """Drop a file of a MIME type on the canvas."""
    page.evaluate(DROP, [file.name, base64.b64encode(file.read_bytes()).decode(), kind])


def kinds(page: Any) -> list[str]:
    """Return the classes of the graph's nodes."""
    return sorted(node["type"] for node in page.evaluate(GRAPH))


def phases(page: Any, picture: Any, seconds: float) -> list[bytes]:
    """Return the looks of a picture one after another, without repetitions, over some seconds."""
    seen: list[bytes] = []
    for _ in range(round(seconds / 0.15)):
        look = picture.screenshot()
        if not seen or look != seen[-1]:
            seen.append(look)
        page.wait_for_timeout(150)
    return seen


def press_run(page: Any) -> str:
    """Press Run, wait, and return how the run ended ("not begun" if a dialog or toast came instead)."""
    page.evaluate("() => void (window.ends = [])")
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.wait_for_function(ENDED)
    ends = page.evaluate("window.ends")
    return str(ends[0][0]) if ends else "not begun"


def complaints(page: Any) -> list[str]:
    """Return the texts of dialogs (missing nodes, missing models, errors), toasts, and uncaught errors."""
    shown = page.locator(".p-dialog, .p-toast-message, .comfy-missing-nodes, .comfy-missing-models")
    return [*shown.all_inner_texts(), *page.faults]


def keep_picture(page: Any, file: Path) -> None:
    """Save a screenshot."""
    page.wait_for_timeout(1000)  # the canvas redraws asynchronously
    page.screenshot(path=file)


def covered(boxes: list[list[Any]]) -> list[tuple[str, str]]:
    """Return the titles of nodes that cover each other, of those in `NODE_BOXES`."""
    pairs = []
    for (one, *a), (other, *b) in combinations(boxes, 2):
        across = a[2] <= b[0] + ROUNDING or b[2] <= a[0] + ROUNDING
        down = a[3] <= b[1] + ROUNDING or b[3] <= a[1] + ROUNDING
        if not across and not down:
            pairs.append((one, other))
    return pairs
