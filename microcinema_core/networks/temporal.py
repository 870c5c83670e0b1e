"""The temporal layers that inflate the image model (section 3.1).

Each is the identity at initialisation. Frames are part of the batch, `(b f) c h w`, and each call is passed the
number of frames per video. Only the last projection of each layer is zero-initialised: with q, k, v and out all zero,
attention would never learn.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import UNetConfig
from .layers import CrossAttention, LayerFactory, feed_forward, frame_positions, zero_


def conv_over_frames(conv: nn.Module, x: Tensor, frames: int) -> Tensor:
    """Apply a (3, 1) Conv2d over the frames of `(b f) c h w`, with the edge frames repeated as padding.

    The view `b c f (h w)` of channels-last activations is itself channels-last, so only the padding copies. For any
    number of equal frames the result is the 1x1 convolution by the summed kernel (AppearNet's one-frame shortcut).
    """
    h, w = x.shape[-2:]
    x = rearrange(x, "(b f) c h w -> b f (h w) c", f=frames)
    x = torch.cat([x[:, :1], x, x[:, -1:]], dim=1)
    x = conv(x.permute(0, 3, 1, 2))
    return rearrange(x, "b c f (h w) -> (b f) c h w", h=h, w=w)


class TemporalConv(nn.Module):
    """A 1D convolution over frames with a skip connection, x + conv(x); follows each spatial convolution."""

    def __init__(self, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.conv = zero_(make.conv(channels, channels, (3, 1)))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `(b f) c h w` to `(b f) c h w`."""
        return x + conv_over_frames(self.conv, x, frames)


class TemporalConvStack(nn.Module):
    """Four times GroupNorm, SiLU and temporal convolution, with one skip connection.

    It follows each ResBlock. This is the layout of published motion weights (`temporal_conv = "per_resblock"`).
    """

    def __init__(self, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.norms = nn.ModuleList(make.group_norm(channels) for _ in range(4))
        self.convs = nn.ModuleList(make.conv(channels, channels, (3, 1)) for _ in range(4))
        zero_(self.convs[-1])

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `(b f) c h w` to `(b f) c h w`."""
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            clip = rearrange(y, "(b f) c h w -> b c (f h) w", f=frames)
            y = rearrange(nn.functional.silu(norm(clip)), "b c (f h) w -> (b f) c h w", f=frames)
            y = conv_over_frames(conv, y, frames)
        return x + y


class TemporalAttention(nn.Module):
    """Attention of each pixel over its frames, with a skip connection; follows each spatial transformer."""

    def __init__(self, channels: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.positions = config.position_encoding == "sinusoidal"
        self.norm = make.layer_norm(channels)
        self.attn = CrossAttention(channels, config.heads(channels), make)
        zero_(self.attn.to_out)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `(b f) c h w` to `(b f) c h w`."""
        h, w = x.shape[-2:]
        tokens = self.norm(rearrange(x, "(b f) c h w -> (b h w) f c", f=frames))
        if self.positions:
            tokens = tokens + frame_positions(frames, tokens.shape[-1], x.device).to(x.dtype)
        return x + rearrange(self.attn(tokens), "(b h w) f c -> (b f) c h w", h=h, w=w)


class TemporalTransformer(nn.Module):
    """Two attentions over frames and a GEGLU feed-forward, with a skip connection around all.

    This is the layout of published motion weights (`temporal_attention = "transformer"`).
    """

    def __init__(self, channels: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.positions = config.position_encoding == "sinusoidal"
        self.norm = make.group_norm(channels, eps=1e-6)
        self.proj_in = make.linear(channels, channels)
        self.norms = nn.ModuleList(make.layer_norm(channels) for _ in range(3))
        self.attns = nn.ModuleList(CrossAttention(channels, config.heads(channels), make) for _ in range(2))
        self.ff = feed_forward(channels, make)
        self.proj_out = zero_(make.linear(channels, channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `(b f) c h w` to `(b f) c h w`."""
        h, w = x.shape[-2:]
        clip = self.norm(rearrange(x, "(b f) c h w -> b c (f h) w", f=frames))
        tokens = self.proj_in(rearrange(clip, "b c (f h) w -> (b h w) f c", f=frames))
        if self.positions:
            tokens = tokens + frame_positions(frames, tokens.shape[-1], x.device).to(x.dtype)
        for norm, attn in zip(self.norms, self.attns, strict=False):
            tokens = tokens + attn(norm(tokens))
        tokens = tokens + self.ff(self.norms[2](tokens))
        return x + rearrange(self.proj_out(tokens), "(b h w) f c -> (b f) c h w", h=h, w=w)


class NoTemporal(nn.Module):
    """The identity, where a layout has no temporal layer."""

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return `(b f) c h w` unchanged."""
        return x


def after_conv(channels: int, config: UNetConfig, make: LayerFactory) -> nn.Module:
    """Make the temporal layer that follows a spatial convolution."""
    return TemporalConv(channels, make) if config.temporal_conv == "per_conv" else NoTemporal()


def after_resblock(channels: int, config: UNetConfig, make: LayerFactory) -> nn.Module:
    """Make the temporal layer that follows a ResBlock."""
    return TemporalConvStack(channels, make) if config.temporal_conv == "per_resblock" else NoTemporal()


def after_attention(channels: int, config: UNetConfig, make: LayerFactory) -> nn.Module:
    """Make the temporal layer that follows a spatial transformer."""
    match config.temporal_attention:
        case "self":
            return TemporalAttention(channels, config, make)
        case "transformer":
            return TemporalTransformer(channels, config, make)
    return NoTemporal()
