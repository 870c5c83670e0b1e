"""What a run leaves for the eyes: the result plays by itself, and every file restores the graph that made it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.release.gallery.graph import Graph
from devtools.release.gallery.layout import MOST
from devtools.release.gallery.parts import video
from devtools.run.home import ROOT
from devtools.run.server import ComfyServer
from tests.browser.canvas import (
    BUILD,
    FIT,
    LOOK_AT,
    NODE_BOXES,
    clip_in,
    complaints,
    covered,
    drop,
    drop_file,
    keep_picture,
    kinds,
    phases,
    press_run,
)
from tests.browser.conftest import opened

SMALL, LARGE = (1024, 700), (1600, 1000)
OURS = "img[src*='MicroCinema_']"
"""The picture that Frame Combine shows."""


def two_faces(rate: float) -> list[list[Any]]:
    """Return a graph that needs no model but the shipped VAE: two pictures, one after the other, with sound."""
    return [
        ["MicroCinemaCheckpointLoader", {"file": "mini_image.safetensors", "role": "image"}],
        ["LoadImage", {"image": "example.png"}],
        ["LoadImage", {"image": "example_2.png"}],
        ["MicroCinemaCentreFrame", {"image": [1, 0], "vae": [0, 2]}],
        ["MicroCinemaCentreFrame", {"image": [2, 0], "vae": [0, 2]}],
        ["ImageBatch", {"image1": [3, 1], "image2": [4, 1]}],
        ["EmptyAudio", {"duration": 5.0}],
        ["MicroCinemaFrameCombine", {"images": [5, 0], "audio": [6, 0], "fps": rate}],
        ["SaveVideo", {"video": [7, 0]}],
    ]


@pytest.mark.parametrize(
    ("nodes", "colours", "size"),
    [
        ("classic", "dark", LARGE),
        ("vue", "dark", SMALL),
        pytest.param("classic", "light", SMALL, marks=pytest.mark.long),
        pytest.param("vue", "light", LARGE, marks=pytest.mark.long),
    ],
)
def test_the_result_plays_by_itself(
    browser: Any, served: ComfyServer, artifacts: Path, nodes: str, colours: str, size: tuple[int, int]
) -> None:
    """The picture in the node changes to and fro without a click, below the report. Centre Frame shows its own."""
    served.free()  # nodes that did not run show nothing
    served.post("/settings", {"Comfy.VueNodes.Enabled": nodes == "vue", "Comfy.ColorPalette": colours})
    name = f"result_{nodes}_{colours}_{size[0]}"
    with opened(browser, served, width=size[0], height=size[1]) as page:
        page.evaluate(BUILD, two_faces(rate=2.0))
        assert (press_run(page), complaints(page)) == ("execution_success", [])
        page.evaluate(FIT)
        keep_picture(page, artifacts / f"{name}_graph.png")
        page.evaluate(LOOK_AT, ["MicroCinemaFrameCombine", 0.8])
        picture = page.locator(OURS).first
        picture.wait_for()
        assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [128, 128]
        assert picture.bounding_box()["height"] > 100
        assert len(phases(page, picture, seconds=6)) >= 4
        assert page.get_by_text("2 frames at 2 a second: 1.000 s.").first.is_visible()
        assert page.get_by_text("failed to load").count() == 0
        keep_picture(page, artifacts / f"{name}.png")
        page.evaluate(LOOK_AT, ["MicroCinemaCentreFrame", 0.8])
        keep_picture(page, artifacts / f"{name}_centre.png")
        assert page.evaluate(PICTURED_NODES, "MicroCinemaCentreFrame") == 2
        assert complaints(page) == []


def test_a_result_has_room_above_the_node_below_it(
    browser: Any, served: ComfyServer, artifacts: Path, tmp_path: Path
) -> None:
    """In Nodes 2.0: a graph so wide that Save Video stands below Video Combine, which grows when it has run."""
    served.free()
    served.post("/settings", {"Comfy.VueNodes.Enabled": True, "Comfy.ColorPalette": "dark"})
    graph = Graph(served.object_info(), "room")
    pictures = []
    for number in range(MOST - 1):
        graph.column(f"Picture {number}")
        pictures.append(graph.add("LoadImage", image="example.png"))
    graph.column("Video")
    video(graph, pictures[0][0], 8.0, colour_anchor=pictures[1][0])  # the report's longest form
    file = tmp_path / "room.json"
    file.write_text(json.dumps(graph.workflow()), encoding="utf-8")
    with opened(browser, served, width=LARGE[0], height=LARGE[1]) as page:
        drop(page, file)
        assert (press_run(page), complaints(page)) == ("execution_success", [])
        clip_in(page, "SaveVideo", "output")
        page.locator(OURS).first.wait_for()
        keep_picture(page, artifacts / "result_room.png")
        assert covered(page.evaluate(NODE_BOXES)) == []


PICTURED_NODES = """kind => app.graph._nodes
    .filter(node => node.type === kind)
    .filter(node => app.nodeOutputs[node.id]?.images?.length === 1).length"""


@pytest.fixture(scope="module")
def files(served: ComfyServer) -> Iterator[dict[str, Path]]:
    """Every kind of file that a run in the front end writes, by its name for people."""
    yield {
        "preview": newest(served.base / "temp", "MicroCinema_*.webp"),
        "sound": newest(served.base / "temp", "MicroCinema_*.mp4"),
        "centre frame": newest(served.base / "temp", "ComfyUI_temp_*.png"),
        "saved video": newest(served.output_dir / "video", "*.mp4"),
    }


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda file: file.stat().st_mtime)


@pytest.fixture(scope="module", params=["classic", "vue"])
def canvas(browser: Any, served: ComfyServer, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The front end with nodes of one kind, after a run of the graph."""
    served.free()
    served.post("/settings", {"Comfy.VueNodes.Enabled": request.param == "vue", "Comfy.ColorPalette": "dark"})
    with opened(browser, served) as page:
        page.evaluate(BUILD, two_faces(rate=8.0))
        assert (press_run(page), complaints(page)) == ("execution_success", [])
        yield page


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("preview", "image/webp"),
        ("sound", "video/mp4"),
        pytest.param("centre frame", "image/png", marks=pytest.mark.long),
        pytest.param("saved video", "video/mp4", marks=pytest.mark.long),
    ],
)
def test_a_dropped_file_restores_its_graph(canvas: Any, files: dict[str, Path], name: str, kind: str) -> None:
    expected = sorted(node for node, _ in two_faces(rate=8.0))
    canvas.evaluate("() => app.graph.clear()")
    assert kinds(canvas) == []
    drop_file(canvas, files[name], kind)
    canvas.wait_for_function("count => app.graph._nodes.length === count", arg=len(expected))
    canvas.wait_for_timeout(1000)
    assert kinds(canvas) == expected
    assert complaints(canvas) == []


@pytest.mark.long
def test_the_moving_picture_of_the_readme_restores_a_graph(canvas: Any) -> None:
    canvas.evaluate("() => app.graph.clear()")
    drop_file(canvas, ROOT / "docs" / "readme.webp", "image/webp")
    canvas.wait_for_function("() => app.graph._nodes.some(node => node.type === 'MicroCinemaTSR')")
    canvas.wait_for_timeout(1000)
    assert complaints(canvas) == []
