"""What AppearNet hands to the main branch, and where it is added.

Everything is computed before the U-Net runs, so that the U-Net knows no AppearNet, only an `Injection`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .layers import by_video, of_size
from .spatial import Modulation


@dataclass(frozen=True)
class Injection:
    """Additive features and SPADE modulations, strength included; each `b f c h w`.

    f is 1 where one serves all frames of a video. Every b videos of a batch get the same, so that branches that look
    at the same pictures share one: see `layers.by_video`.

    conv_in: added to the answer of the first convolution and its layer over time (`concat`).
    encoder: by input block, added to h after its skip is stored.
    skips: by input block, added to its skip as the decoder takes it (so that a skip counts once).
    middle: added to h after the middle block.
    norms: by the name of the norm's ResBlock and which norm of it, ("input_blocks.1.0", "in" | "out").
    """

    conv_in: Tensor | None = None
    encoder: dict[int, Tensor] = field(default_factory=dict)
    skips: dict[int, Tensor] = field(default_factory=dict)
    middle: Tensor | None = None
    norms: dict[tuple[str, str], Modulation] = field(default_factory=dict)


NOTHING = Injection()


def add(x: Tensor, feature: Tensor | None, frames: int) -> Tensor:
    """x `(n b f) c h w` plus a feature `b f c h w`, or `b 1 c h w`."""
    if feature is None:
        return x
    return (by_video(feature, x, frames) + of_size(feature, x)).flatten(0, 2)
