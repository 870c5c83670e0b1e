"""The real ComfyUI in this process, with all its own nodes, on the CPU."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from pathlib import Path
from typing import Any


def open_host(host: Path, arguments: list[str] | None = None, *, cpu: bool = True) -> None:
    """Make ComfyUI importable, without loading its nodes.

    Args:
        host: ComfyUI's folder.
        arguments: further command line arguments of ComfyUI.
        cpu: whether it runs on the CPU.
    """
    given = ["main.py", "--use-pytorch-cross-attention", *(["--cpu"] if cpu else []), *(arguments or [])]
    sys.path.insert(0, str(host))
    import comfy.options

    comfy.options.enable_args_parsing()
    own, sys.argv = sys.argv, given
    try:
        import comfy.cli_args
    finally:
        sys.argv = own
    import utils.extra_config  # noqa: F401  (before any node file, or another `utils` wins)

    logging.disable(logging.WARNING)


def boot(host: Path, arguments: list[str] | None = None) -> dict[str, Any]:
    """Import ComfyUI on the CPU (see `open_host`) and return its node classes by name."""
    open_host(host, arguments)
    import comfy.utils

    host_nodes: Any = importlib.import_module("nodes")  # the host's, not the pack's

    comfy.utils.set_progress_bar_enabled(False)
    asyncio.run(host_nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return dict(host_nodes.NODE_CLASS_MAPPINGS)


def host_version() -> str:
    """Return the version of the imported ComfyUI."""
    import comfyui_version

    return str(comfyui_version.__version__)
