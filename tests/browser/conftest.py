"""The real front end in chromium, on a real ComfyUI with this pack and weights for every shipped workflow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.run.browser import chromium, find_chromium
from devtools.run.home import ROOT
from devtools.run.host import find_host
from devtools.run.server import ComfyServer
from tests.host.conftest import comfy_in_process as comfy_in_process
from tests.host.conftest import comfyui as comfyui
from tests.host.gallery_files import write_gallery_files, write_svd
from tests.host.weight_files import write_what_workflows_name

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def server(comfy_in_process: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A host with every file that the workflows name."""
    base = tmp_path_factory.mktemp("host")
    write_what_workflows_name(base / "models")
    write_gallery_files(base / "models", base / "input")
    write_svd(base / "models" / "checkpoints" / "svd.safetensors")
    Image.radial_gradient("L").resize((300, 200)).convert("RGB").save(base / "input" / "example.png")
    with ComfyServer(sys.executable, find_host(), base=base, arguments=("--disable-metadata",)) as running:
        running.post("/settings", {"Comfy.TutorialCompleted": True})  # no welcome dialog over the canvas
        yield running


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
