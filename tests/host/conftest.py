"""Fixtures for tests against the real ComfyUI: one server for the whole session.

`host.run(prompt)` takes an API-format prompt and returns the outputs by node id; `host.run_expect_error(prompt)`
returns the host's error message. `host.submit`, `host.wait` and `host.interrupt()` are their parts. `host.input_dir`,
`host.output_dir`, `host.models_dir` are folders, `host.object_info()` returns the schemas, `host.url` is the address.
`devtools.run.workflow.read_prompt(path, host.object_info())` reads a workflow.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.run.host import Host, find_host
from devtools.run.server import ComfyServer
from tests.host.tiny_family import load_family
from tests.host.video_model_files import add_small_text

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.host)


@pytest.fixture(scope="session")
def comfyui() -> Host:
    """The ComfyUI on disk: $COMFYUI_PATH, else the one that dev.py uses."""
    return find_host()


@pytest.fixture
def models_in_tmp_path(comfy_in_process: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the test runs, `tmp_path` is this process's only folder of checkpoints and of this pack's files."""
    import folder_paths

    for kind in ("checkpoints", "microcinema"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})  # else it lists folders that are gone


@pytest.fixture(scope="session")
def host(comfyui: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running ComfyUI server with this pack installed."""
    base = tmp_path_factory.mktemp("server")
    add_small_text(base)
    with ComfyServer(sys.executable, comfyui, base=base, arguments=("--disable-metadata",)) as server:
        yield server


@pytest.fixture(scope="session")
def comfy_in_process(comfyui: Host) -> Path:
    """Make `import comfy...` work in this process, on the CPU; its path precedes the repository's."""
    path = str(comfyui.path)
    if path not in sys.path:
        sys.path.insert(0, path)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.use_pytorch_cross_attention = True
    import utils.extra_config  # noqa: F401  (before any node file, or another `utils` wins)

    return comfyui.path


@pytest.fixture(scope="session")
def family(comfy_in_process: Path, tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    """The tiny family, loaded in this process."""
    return load_family(tmp_path_factory.mktemp("family"))
