"""MicroCinema for ComfyUI: text to video by a centre frame."""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    """Return the extension that ComfyUI asks a pack for (called by the host; imports nothing before)."""
    from comfy_api.latest import ComfyExtension

    class MicroCinemaExtension(ComfyExtension):
        async def get_node_list(self) -> list:
            return []

    return MicroCinemaExtension()
