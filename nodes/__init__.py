"""The nodes of the pack: thin; schema in, core called, result wrapped."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io  # type: ignore[import-not-found]

from ..microcinema_core.adapter import register_folders
from . import appearance, interpolation, loaders, sampling, video


class MicroCinemaExtension(ComfyExtension):
    """Hands the node classes of every family to the host."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_folders()
        families = (loaders, appearance, sampling, interpolation, video)
        return [node for family in families for node in family.NODES]
