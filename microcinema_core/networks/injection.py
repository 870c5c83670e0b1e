"""AppearNet's output as the main branch receives it, and where it is added (section 3.2).

It is computed before the U-Net runs, so the U-Net depends on an `Injection` and not on AppearNet.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from torch import Tensor

from .layers import ImageContext, per_frame, resize_like, split_videos
from .spatial import Modulation


@dataclass(frozen=True)
class Injection:
    """Additive features and SPADE modulations, strength included; each `b f c h w`.

    f is 1 where one feature serves all frames of a video. A batch may hold the b videos several times: guidance
    branches with the same appearance share one Injection, see `layers.split_videos`.

    Attributes:
        conv_in: added to the output of the first convolution, before its temporal layer (`concat`).
        encoder: by input block, added to h after its skip is stored.
        skips: by input block, added to its skip when the decoder takes it, so that a skip counts once.
        middle: added to h after the middle block.
        norms: by ResBlock and norm within it, such as `("input_blocks.1.0", "in" | "out")`.
        image: tokens of the given picture, `v l d` for the v videos of the batch, or None.
        given: by block, features of the given frames for its `AppearanceAttention`, `v g k h w`: g is 1, the centre
            frame, or 2, the first and the last.
    """

    conv_in: Tensor | None = None
    encoder: dict[int, Tensor] = field(default_factory=dict)
    skips: dict[int, Tensor] = field(default_factory=dict)
    middle: Tensor | None = None
    norms: dict[tuple[str, str], Modulation] = field(default_factory=dict)
    image: ImageContext | None = None
    given: dict[str, Tensor] = field(default_factory=dict)

    def to(self, dtype: torch.dtype) -> Injection:
        """Return the injection in a dtype: that of the U-Net, which AppearNet's may differ from."""

        def cast(features: dict[int, Tensor]) -> dict[int, Tensor]:
            return {block: feature.to(dtype) for block, feature in features.items()}

        return Injection(
            conv_in=None if self.conv_in is None else self.conv_in.to(dtype),
            encoder=cast(self.encoder),
            skips=cast(self.skips),
            middle=None if self.middle is None else self.middle.to(dtype),
            norms={
                at: Modulation(norm.gamma.to(dtype), norm.beta.to(dtype)) for at, norm in self.norms.items()
            },
            image=self.image and replace(self.image, tokens=self.image.tokens.to(dtype)),
            given={block: feature.to(dtype) for block, feature in self.given.items()},
        )


NO_INJECTION = Injection()
"""The U-Net alone: the text-to-video model."""


def add_feature(x: Tensor, feature: Tensor | None, frames: int) -> Tensor:
    """Add a feature `b f c h w` or `b 1 c h w`, resized, to `(n b f) c h w`; None adds nothing."""
    if feature is None:
        return x
    return (split_videos(x, feature, frames) + resize_like(feature, x)).flatten(0, 2)


def tokens_of_frames(image: ImageContext, frames: int, per_frame_count: int) -> ImageContext:
    """Return a picture's tokens `(b f) l d` from those of its video, `b n d`.

    A clip of as many frames as the tokens are made for shares them out in order; in others each frame sees them all.
    """
    tokens, strength = image.tokens, image.strength
    if tokens.shape[1] == frames * per_frame_count:
        tokens = rearrange(tokens, "b (f l) d -> (b f) l d", f=frames)
    else:
        tokens = per_frame(tokens, frames)
    return ImageContext(tokens, per_frame(strength, frames) if isinstance(strength, Tensor) else strength)
