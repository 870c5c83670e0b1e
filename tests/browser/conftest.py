"""The real front end in chromium, on a real ComfyUI with this pack and weights for every shipped workflow."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.run.browser import chromium, find_chromium
from devtools.run.example_pictures import add_example_pictures
from devtools.run.home import ROOT
from devtools.run.host import find_host
from devtools.run.server import LIVE_PREVIEWS, ComfyServer
from tests.browser.canvas import LISTEN
from tests.host.conftest import comfy_in_process as comfy_in_process
from tests.host.conftest import comfyui as comfyui
from tests.host.gallery_files import write_gallery_files
from tests.host.video_model_files import add_small_text, write_video_models
from tests.host.weight_files import write_what_workflows_name

HERE = Path(__file__).parent
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
TIMEOUT = 240_000  # milliseconds; a busy machine without a GPU draws slowly


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


def workflows(*, in_every_run: tuple[str, ...]) -> list[Any]:
    """Return parameters for all shipped workflows; those of other numbers run only where a file is named."""
    return [
        pytest.param(file, id=file.stem, marks=[] if file.stem[:2] in in_every_run else pytest.mark.long)
        for file in WORKFLOWS
    ]


@pytest.fixture(scope="module")
def server(comfy_in_process: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A host with every file that the workflows name."""
    base = tmp_path_factory.mktemp("host")
    write_what_workflows_name(base / "models")
    write_gallery_files(base / "models", base / "input")
    write_video_models(base / "models")
    add_small_text(base)
    Image.radial_gradient("L").resize((300, 200)).convert("RGB").save(base / "input" / "example.png")
    with ComfyServer(sys.executable, find_host(), base=base, arguments=("--disable-metadata",)) as running:
        running.post("/settings", {"Comfy.TutorialCompleted": True})  # no welcome dialog over the canvas
        yield running
    shutil.rmtree(base)  # 1 GB


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A host as `dev.py serve` starts it: with what ships, and files that have the graph in them."""
    base = tmp_path_factory.mktemp("served")
    with ComfyServer(sys.executable, find_host(), base=base, arguments=LIVE_PREVIEWS) as running:
        add_example_pictures(running.input_dir)
        running.post("/settings", {"Comfy.TutorialCompleted": True})
        yield running


@contextmanager
def opened(browser: Any, server: ComfyServer, *, width: int = 1600, height: int = 1000) -> Iterator[Any]:
    """The front end in a fresh profile; `faults` collects uncaught errors, `ends` how runs ended."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(server.url, wait_until="commit")
    page.wait_for_function("() => window.app?.graph && document.querySelector('#graph-canvas')")
    page.get_by_role("button", name="Run", exact=True).first.wait_for()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.evaluate(LISTEN)
    yield page
    context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, headless. While it runs, no other test of this process can run an event loop."""
    pytest.importorskip("playwright.sync_api")
    path = find_chromium()
    if path is None:
        pytest.skip("no chromium is installed")
    with chromium(path) as running:
        yield running


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """The folder for the tests' screenshots."""
    folder = ROOT / "test-artifacts"
    folder.mkdir(exist_ok=True)
    return folder
