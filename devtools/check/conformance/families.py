"""Two small Stable Diffusion U-Nets, and the host taught to know them by their keys as it knows the wide ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from microcinema_core.config import UNetConfig


@dataclass(frozen=True)
class Family:
    """A U-Net with Stable Diffusion's keys, and height and width of the latents that it is tried on."""

    name: str
    config: UNetConfig
    size: tuple[int, int]
    stock: str


def _family(name: str, stock: str, size: tuple[int, int], **shape: Any) -> Family:
    return Family(name, UNetConfig(in_channels=4, out_channels=4, **shape).as_2d(), size, stock)


_SD1: dict[str, Any] = {
    "model_channels": 32,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
}
_LEVELS: dict[str, Any] = {"channel_mult": (1, 2, 4), "num_res_blocks": 1, "transformer_depth": (1, 1, 0)}

FAMILIES = (
    _family("SD 1.x", "SD15", (16, 8), **_SD1, **_LEVELS),
    _family("SD 2.x", "SD20", (8, 8), model_channels=64, context_dim=1024, **_LEVELS),
)
"""Attention, projections and contexts of SD 1.5 and 2.1, with fewer and narrower blocks."""
ALL_BLOCKS = _family(
    "SD 1.x, all blocks",
    "SD15",
    (16, 8),
    **_SD1,
    channel_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    transformer_depth=(1, 1, 1, 0),
)
"""SD 1.5 block for block, narrower: for what counts blocks, as T2I-Adapters do."""


def teach_host() -> None:
    """Add narrow twins of SD 1.x and 2.x to the models that the host's own loaders know."""
    import comfy.supported_models

    for family in FAMILIES:
        wide = getattr(comfy.supported_models, family.stock)
        known = {**wide.unet_config, "model_channels": family.config.model_channels}
        narrow: Any = type(f"Narrow{family.stock}", (wide,), {"unet_config": known})
        comfy.supported_models.models.insert(0, narrow)
