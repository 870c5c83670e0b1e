"""MicroCinema for ComfyUI: a centre frame and a sentence become a video.

Nothing is imported before the host asks, so that tools may look at this folder without a ComfyUI.
"""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """Return the extension that holds all nodes."""
    from .nodes import MicroCinemaExtension

    return MicroCinemaExtension()
