"""Attention from every frame to AppearNet's features of the given frames: an option that is not of the paper.

SPADE's features lie where the given picture has them. What moves has to be carried from there to where it is in each
frame, which convolutions learn slowly. Here a token looks at the picture where it would be if it had moved along a
simple motion, and learns how its own motion differs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import centre_index
from .layers import LayerFactory, timestep_embedding, zero_

STEP = 1 / 16
"""Unit of motions: a share of the picture's edge in a unit of time, which is one frame around a centre frame, and the
whole clip between two given frames. Key frames that interpolation starts from are then as far apart in both."""
PANS = ((0, 0), (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (0, 0), (0, 0))
"""Motion of the eight heads in x and y, in units of `STEP`: still twice, four directions, twice for the zooms."""
ZOOMS = (0, 0, 0, 0, 0, 0, 0.105, -0.105)
"""Growth of the eight heads about the middle, as the change of the size's logarithm in a unit of time."""
HEADS = len(ZOOMS)
FINEST = 3.0
"""Wavelength in cells of the finest of the waves that tell places apart; each further one is twice as long."""
SHARPNESS = 2.0
"""What each wave adds to the logit at the very place that a head looks at: 0.94 of the weight is then on one cell."""


class AppearanceAttention(nn.Module):
    """Attention with eight heads, each of which looks along a motion; it follows a spatial transformer.

    The logit of a place has two parts: how well query and key match, as in any attention, and how near the place is to
    the one that the head looks at. That is the token's own, moved back along the head's motion by the distance in time
    from the given frame, plus what the token itself predicts. Nearness is a sum of cosines, and so a product of
    further channels of query and key. A gate weighs each head.

    Args:
        channels: channels of the activations, a multiple of 8.
        feature: channels of AppearNet's feature.
        make: constructor of the layers.
    """

    def __init__(self, channels: int, feature: int, make: LayerFactory) -> None:
        super().__init__()
        self.attend = make.attend
        self.norm = make.layer_norm(channels)
        self.to_q = make.linear(channels, channels, bias=False)
        self.to_k = make.linear(feature, channels, bias=False)
        self.to_v = make.linear(feature, channels, bias=False)
        self.motion = zero_(make.linear(channels, HEADS * 5))
        self.gate = zero_(make.linear(channels, HEADS))
        self.to_out = zero_(make.linear(channels, channels, bias=False))
        # Buffers, since a constant that is sent to a GPU in each step would make the host wait for it.
        for name, values in (("pans", PANS), ("zooms", ZOOMS)):
            constant = torch.tensor(values, dtype=torch.float32, device=make.device)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, x: Tensor, given: Tensor, frames: int) -> Tensor:
        """Map `(n v f) c h w` to the same shape.

        Args:
            x: activations; n guidance branches share the given frames.
            given: features of the given frames, strength included, `v g k h w`: g is 1, the centre frame, or 2, the
                first and the last.
            frames: frames per video, f.
        """
        given = given.repeat(x.shape[0] // (frames * given.shape[0]), 1, 1, 1, 1)
        tokens = self.norm(rearrange(x, "n c h w -> n (h w) c"))
        unit = 1 if given.shape[1] == 1 else frames - 1
        for index, at in enumerate(places_of_given(frames, given.shape[1])):
            distance = (torch.arange(frames, device=x.device) - at).repeat(given.shape[0])
            out = self._look(tokens, given[:, index], distance, unit, x.shape[-2:])
            x = x + rearrange(out, "n (h w) c -> n c h w", h=x.shape[-2])
        return x

    def _look(self, tokens: Tensor, feature: Tensor, distance: Tensor, unit: int, size: torch.Size) -> Tensor:
        """Return what tokens `(v f) l c` see of one given frame per video, `v k h w`.

        Args:
            tokens: normalised activations.
            feature: AppearNet's.
            distance: frames from the given one, `(v f)`.
            unit: frames in a unit of time.
            size: height and width of the tokens.
        """
        videos, width = feature.shape[0], tokens.shape[-1]
        tokens = tokens + timestep_embedding(distance, width, max_period=100).to(tokens.dtype)[:, None]
        source = rearrange(feature, "v k h w -> v (h w) k")
        k, v = self.to_k(source), self.to_v(source)
        velocity, offset, sharper = self.motion(tokens).float().unflatten(-1, (HEADS, 5)).split((2, 2, 1), -1)
        own, time = positions(size, tokens.device), (distance / unit)[:, None, None, None]
        places = own[:, None] - time * self._motions(own) + STEP * (time * velocity + offset)
        near_q, near_k = (
            _waves(at, feature.shape[-2:]) for at in (places, positions(feature.shape[-2:], tokens.device))
        )
        # The attention function divides by the square root of the channels; nearness must not depend on them.
        channels = width // HEADS + near_k.shape[-1]
        near_q = SHARPNESS * math.sqrt(channels) * sharper.exp() * near_q
        q = _joined(self.to_q(tokens), near_q)
        k = _joined(k, near_k[:, None].expand(videos, -1, HEADS, -1))
        v = F.pad(v.unflatten(-1, (HEADS, -1)), (0, near_k.shape[-1])).flatten(-2)
        q = rearrange(q, "(v f) l c -> v (f l) c", v=videos)
        seen = rearrange(self.attend(q, k, v, HEADS), "v (f l) c -> (v f) l c", l=tokens.shape[1])
        seen = seen.unflatten(-1, (HEADS, -1))[..., : width // HEADS]
        gate = 2 * torch.sigmoid(self.gate(tokens))
        return self.to_out((seen * gate[..., None]).flatten(-2))

    def _motions(self, places: Tensor) -> Tensor:
        """Return the velocity of each head at places `l 2`: `l heads 2`, in shares of the edges per unit of time."""
        pans, zooms = self.get_buffer("pans").float(), self.get_buffer("zooms").float()
        return STEP * pans + zooms[:, None] * (places - 0.5)[:, None]


def places_of_given(frames: int, given: int) -> tuple[int, ...]:
    """Return the numbers of the given frames: the centre frame, or the first and the last."""
    return (centre_index(frames),) if given == 1 else (0, frames - 1)


def positions(size: torch.Size, device: torch.device) -> Tensor:
    """Return the middles of all cells of a picture of (height, width), `l 2` as (x, y), in shares of the edges."""
    rows, columns = ((torch.arange(side, device=device) + 0.5) / side for side in size)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)


def _waves(places: Tensor, size: torch.Size) -> Tensor:
    """Encode places `... 2` so that products tell how near two are: `... k`, float32.

    Wavelengths go from `FINEST` cells of a picture of (height, width) to beyond its longer edge.
    """
    count = math.ceil(math.log2(max(size) / FINEST)) + 2
    cells = torch.stack([places[..., 0] * size[1], places[..., 1] * size[0]], dim=-1)
    rates = 2 * math.pi / (FINEST * 2.0 ** torch.arange(count, device=places.device))
    angles = (cells[..., None] * rates).flatten(-2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _joined(content: Tensor, nearness: Tensor) -> Tensor:
    """Join content `n l (heads d)` and nearness `n l heads k` head by head: `n l (heads (d k))`."""
    heads = content.unflatten(-1, (HEADS, -1))
    return torch.cat([heads, nearness.to(content.dtype)], dim=-1).flatten(-2)
