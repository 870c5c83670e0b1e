"""The real front end, in chromium, on a real ComfyUI with this pack and weights for every shipped workflow."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.check import BROWSERS
from devtools.home import ROOT
from devtools.host import find_host
from devtools.server import ComfyServer
from tests.host.weight_files import write_what_workflows_name

HERE = Path(__file__).parent
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A host that has every file that the workflows name."""
    base = tmp_path_factory.mktemp("host")
    write_what_workflows_name(base / "models")
    (base / "input").mkdir()
    Image.radial_gradient("L").resize((300, 200)).convert("RGB").save(base / "input" / "example.png")
    with ComfyServer(sys.executable, find_host(), base=base, arguments=("--disable-metadata",)) as running:
        running.post("/settings", {"Comfy.TutorialCompleted": True})  # no welcome over the canvas
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, headless."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where pictures of the tests are kept."""
    folder = ROOT / "test-artifacts"
    folder.mkdir(exist_ok=True)
    return folder
