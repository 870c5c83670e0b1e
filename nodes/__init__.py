"""The nodes of the pack: thin; schema in, core called, result wrapped."""

from __future__ import annotations

from ..microcinema_core.adapter import register_folders
from ..microcinema_core.adapter.host import ComfyExtension, io
from . import appearance, interpolation, loaders, sampling, video


class MicroCinemaExtension(ComfyExtension):
    """Hands the node classes of every family to the host."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return all node classes, each schema made once: the host takes all of them or, where one fails, none."""
        register_folders()
        families = (loaders, appearance, sampling, interpolation, video)
        classes = [node for family in families for node in family.NODES]
        for node in classes:
            node.GET_SCHEMA()
        return classes
