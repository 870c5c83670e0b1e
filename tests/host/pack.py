"""This pack in this process, imported as ComfyUI imports it from custom_nodes."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from devtools.run.home import ROOT


@contextmanager
def imported(name: str) -> Iterator[ModuleType]:
    """Import the pack under a name of its own; at the end its modules are forgotten."""
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        for key in [key for key in sys.modules if key.partition(".")[0] == name]:
            del sys.modules[key]


def nodes_of(module: ModuleType) -> dict[str, type]:
    """Return the pack's nodes by their ids."""
    classes = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
    return {node.__name__: node for node in classes}
