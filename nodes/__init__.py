"""The nodes of the pack. Each one declares its schema, calls the core and wraps the result."""

from __future__ import annotations

from ..microcinema_core.adapter import register_folders
from ..microcinema_core.adapter.host import ComfyExtension, io
from . import appearance, crafter, interpolation, loaders, long_video, motion, prompts, sampling, video


class MicroCinemaExtension(ComfyExtension):
    """The extension object through which ComfyUI gets the node classes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return all node classes.

        Every schema is built once here, so that an error in one of them leaves no node registered.
        """
        register_folders()
        modules = (loaders, motion, crafter, prompts, appearance, sampling, interpolation, long_video, video)
        classes = [node for module in modules for node in module.NODES]
        for node in classes:
            node.GET_SCHEMA()
        return classes
