"""MicroCinema for ComfyUI: a centre frame and a sentence become a video.

Nothing is imported before the host asks, so that tools may look at this folder without a ComfyUI.
"""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"
TESTED = ("0.3.75", "0.33.0")
"""The versions of ComfyUI that all of the pack's tests run on."""


async def comfy_entrypoint() -> Any:
    """Return the extension that holds all nodes.

    Raises:
        RuntimeError: a ComfyUI that lacks what the pack needs; the host logs the sentence and loads none of the nodes.
    """
    import logging

    version = _host_version()
    tested = f"tested with ComfyUI {' and '.join(TESTED)}, this is {version}"
    try:
        from .nodes import MicroCinemaExtension
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"MicroCinema cannot work with this ComfyUI, so none of its nodes are loaded: {error} ({tested}). "
            "Update ComfyUI or the node pack."
        ) from error
    if version not in TESTED:
        logging.getLogger(__name__).warning("MicroCinema was %s: please report any problem.", tested)
    return MicroCinemaExtension()


def _host_version() -> str:
    try:
        from comfyui_version import __version__  # type: ignore[import-not-found]
    except ImportError:
        return "of an unknown version"
    return str(__version__)
