"""Every shipped graph as the front end's two kinds of nodes draw it, before anything has run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.run.server import ComfyServer
from tests.browser.canvas import NODE_BOXES, complaints, covered, drop, keep_picture
from tests.browser.conftest import opened, workflows

WINDOW = (1600, 1000)


@pytest.fixture(scope="module", params=["classic", "vue"])
def canvas(browser: Any, served: ComfyServer, request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """The front end with nodes of one kind; it does not ask for models that do not ship."""
    served.post(
        "/settings",
        {
            "Comfy.VueNodes.Enabled": request.param == "vue",
            "Comfy.ColorPalette": "dark",
            "Comfy.Workflow.ShowMissingModelsWarning": False,
        },
    )
    with opened(browser, served, width=WINDOW[0], height=WINDOW[1]) as page:
        yield request.param, page


@pytest.mark.parametrize(
    "file",
    workflows(in_every_run=("10", "11", "41")),
)
def test_a_graph_opens_in_view_and_nothing_covers_a_node(
    canvas: tuple[str, Any], artifacts: Path, file: Path
) -> None:
    """A screenshot in both modes. Nodes 2.0 are elements of the page, so their boxes are checked as they are drawn."""
    mode, page = canvas
    nodes = drop(page, file)
    keep_picture(page, artifacts / f"layout_{mode}_{file.stem}.png")
    assert complaints(page) == []
    if mode == "classic":
        return  # tests/tools/test_layout.py has these boxes from the files
    boxes = page.evaluate(NODE_BOXES)
    assert len(boxes) == len(nodes)
    for name, left, top, right, bottom in boxes:
        assert min(left, top) >= 0 and right <= WINDOW[0] and bottom <= WINDOW[1], name
    assert covered(boxes) == []
