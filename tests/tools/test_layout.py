"""The shipped graphs as people see them: what fits the window, what covers what, and what the notes and pages name."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from devtools.release.gallery.layout import AT_THE_END, node_height
from devtools.release.gallery.models import PUBLISHED
from devtools.run.home import ROOT
from devtools.run.models import needed_files
from devtools.run.workflow import NOTE_NODES

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
NEWER = sorted((ROOT / "workflows" / "newer").glob("*.json"))
TITLE = 30
"""Height of a title bar, in the canvas's units."""
NODES_2 = 1.2
"""How much larger the front end's Nodes 2.0 shows a graph than its older canvas."""
WINDOW = (1600, 1000)

each = pytest.mark.parametrize("file", [*WORKFLOWS, *NEWER], ids=lambda file: file.stem)


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def box(node: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a node with its title bar."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


@each
def test_nothing_covers_a_node(file: Path) -> None:
    for one, other in combinations(read(file)["nodes"], 2):
        a, b = box(one), box(other)
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (one["type"], other["type"])


@each
def test_every_node_but_the_note_is_in_one_group(file: Path) -> None:
    graph = read(file)
    frames = [(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in graph["groups"])]
    for node in graph["nodes"]:
        a = box(node)
        around = [f for f in frames if f[0] <= a[0] and f[1] <= a[1] and a[2] <= f[2] and a[3] <= f[3]]
        assert len(around) == (node["type"] not in NOTE_NODES), node["type"]


@each
def test_a_group_holds_what_its_nodes_show_when_they_have_run(file: Path) -> None:
    graph = read(file)
    for left, top, width, height in (group["bounding"] for group in graph["groups"]):
        for node in graph["nodes"]:
            x, y, _, bottom = box(node)
            if left <= x < left + width and node["type"] in AT_THE_END:
                assert max(bottom, y + TITLE + node_height(node)) <= top + height, node["type"]


@each
def test_the_first_view_shows_the_graph_whole_with_readable_text(file: Path) -> None:
    """In Nodes 2.0, too, which enlarges a graph from the origin. Below a scale of 0.571 the canvas shows no text."""
    graph = read(file)
    view = graph["extra"]["ds"]
    boxes = [box(node) for node in graph["nodes"]]
    assert view["scale"] > 0.571
    assert min(a[0] for a in boxes) >= 0 and min(a[1] for a in boxes) >= 0
    for axis, side in enumerate(WINDOW):
        end = max(a[2 + axis] for a in boxes)
        shown = (end * NODES_2 + view["offset"][axis]) * view["scale"]
        assert shown <= side, (axis, shown)


@each
def test_no_link_runs_behind_a_column(file: Path) -> None:
    """Those that pass one have a way above it: a reroute at each end."""
    graph = read(file)
    nodes = {node["id"]: node for node in graph["nodes"]}
    lefts = sorted({node["pos"][0] for node in nodes.values() if node["type"] not in NOTE_NODES})
    points = {point["id"]: point for point in graph["extra"].get("reroutes", [])}
    parents = {end["id"]: end["parentId"] for end in graph["extra"].get("linkExtensions", [])}
    for number, origin, _, target, _, _ in graph["links"]:
        columns = [lefts.index(nodes[end]["pos"][0]) for end in (origin, target)]
        if columns[1] - columns[0] < 2:
            assert number not in parents
            continue
        last = points[parents[number]]
        for point, end in ((points[last["parentId"]], origin), (last, target)):
            assert number in point["linkIds"]
            assert point["pos"][1] < min(group["bounding"][1] for group in graph["groups"])
            distance = point["pos"][0] - nodes[end]["pos"][0]
            assert (0 < distance - nodes[end]["size"][0] < 60) if end == origin else (-60 < distance < 0)


@each
def test_the_note_names_every_file_that_has_to_be_fetched(file: Path) -> None:
    graph = read(file)
    (note,) = (node["widgets_values"][0] for node in graph["nodes"] if node["type"] in NOTE_NODES)
    for need in needed_files(graph):
        assert need.name in note or need.name.startswith("mini_"), need.name
        if need.name in PUBLISHED:
            assert need.url and need.folders == (PUBLISHED[need.name][0],)


@each
def test_a_graph_with_a_forgotten_link_cannot_succeed_without_its_video(file: Path) -> None:
    """The host runs every output node that it can, so all of them are behind the video. 50 and 51 save two results."""
    shown = {"PreviewImage", "PreviewAny", "SaveImage"} & {node["type"] for node in read(file)["nodes"]}
    assert shown == {"50": {"SaveImage"}, "51": {"SaveImage"}, "52": {"PreviewAny"}}.get(file.stem[:2], set())


@pytest.mark.parametrize("page", ["README.md", "docs/workflows.md"])
def test_the_pages_name_every_workflow(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not [file.stem for file in WORKFLOWS if f"*{file.stem}*" not in text]


def test_readme_names_every_blueprint() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [file.stem for file in (ROOT / "subgraphs").glob("*.json") if f"*{file.stem}*" not in text]
