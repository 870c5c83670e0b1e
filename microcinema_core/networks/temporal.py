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
from .layers import (
    CrossAttention,
    LayerFactory,
    absolute_positions,
    feed_forward,
    frame_positions,
    zero_,
)


def conv_over_frames(conv: nn.Module, x: Tensor, frames: int, *, zero_padding: bool = False) -> Tensor:
    """Apply a (3, 1) Conv2d over the frames of `(b f) c h w`, padded with the edge frames or with zeros.

    The view `b c f (h w)` of channels-last activations is itself channels-last, so only the padding copies. For any
    number of equal frames, padded with edge frames, the result is the 1x1 convolution by the summed kernel (AppearNet's
    one-frame shortcut).
    """
    h, w = x.shape[-2:]
    x = rearrange(x, "(b f) c h w -> b f (h w) c", f=frames)
    first, last = x[:, :1], x[:, -1:]
    if zero_padding:
        first, last = torch.zeros_like(first), torch.zeros_like(last)
    x = torch.cat([first, x, last], dim=1)
    x = conv(x.permute(0, 3, 1, 2))
    return rearrange(x, "b c f (h w) -> (b f) c h w", h=h, w=w)


class TemporalConv(nn.Module):
    """A 1D convolution over frames with a skip connection, x + conv(x); follows each spatial convolution."""

    def __init__(self, channels: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.zero_padding = config.temporal_padding == "zero"
        self.conv = zero_(make.conv(channels, channels, (3, 1)))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `(b f) c h w` to `(b f) c h w`."""
        return x + conv_over_frames(self.conv, x, frames, zero_padding=self.zero_padding)


class TemporalConvStack(nn.Module):
    """Four times GroupNorm, SiLU and temporal convolution, with one skip connection.

    It follows each ResBlock. This is the layout of published motion weights (`temporal_conv = "per_resblock"`).
    """

    def __init__(self, channels: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.zero_padding = config.temporal_padding == "zero"
        self.norms = nn.ModuleList(make.group_norm(channels) for _ in range(4))
        self.convs = nn.ModuleList(make.conv(channels, channels, (3, 1)) for _ in range(4))
        zero_(self.convs[-1])

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `(b f) c h w` to `(b f) c h w`."""
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            clip = rearrange(y, "(b f) c h w -> b c (f h) w", f=frames)
            y = rearrange(nn.functional.silu(norm(clip)), "b c (f h) w -> (b f) c h w", f=frames)
            y = conv_over_frames(conv, y, frames, zero_padding=self.zero_padding)
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
    """Attentions over frames and a GEGLU feed-forward, with a skip connection around all.

    This is the layout of published motion weights (`temporal_attention = "transformer"`). Frame numbers (`absolute`)
    are added before each attention, after its norm; distances to the centre frame (`sinusoidal`) once, to the tokens.

    Args:
        channels: channels of the activations.
        config: the U-Net's configuration.
        make: constructor of the layers.
        width: channels of the tokens; None takes those of the activations.
        heads: attention heads; None takes the configuration's.
    """

    def __init__(
        self,
        channels: int,
        config: UNetConfig,
        make: LayerFactory,
        *,
        width: int | None = None,
        heads: int | None = None,
    ) -> None:
        super().__init__()
        width = width or channels
        heads = heads or config.heads_over_frames(channels)
        self.over_clip = config.temporal_norm == "clip"
        self.position_encoding = config.position_encoding
        self.norm = make.group_norm(channels, eps=1e-6)
        self.proj_in = make.linear(channels, width)
        attentions = config.temporal_attentions
        self.norms = nn.ModuleList(make.layer_norm(width) for _ in range(attentions + 1))
        self.attns = nn.ModuleList(CrossAttention(width, heads, make) for _ in range(attentions))
        self.ff = feed_forward(width, make)
        self.proj_out = zero_(make.linear(width, channels))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `(b f) c h w` to `(b f) c h w`."""
        h, w = x.shape[-2:]
        if self.over_clip:
            clip = self.norm(rearrange(x, "(b f) c h w -> b c (f h) w", f=frames))
            tokens = rearrange(clip, "b c (f h) w -> (b h w) f c", f=frames)
        else:
            tokens = rearrange(self.norm(x), "(b f) c h w -> (b h w) f c", f=frames)
        tokens = self.proj_in(tokens)
        *norms, last_norm = self.norms
        numbers: Tensor | float = 0.0
        if self.position_encoding == "sinusoidal":
            tokens = tokens + frame_positions(frames, tokens.shape[-1], x.device).to(x.dtype)
        elif self.position_encoding == "absolute":
            numbers = absolute_positions(frames, tokens.shape[-1], x.device).to(x.dtype)
        for norm, attn in zip(norms, self.attns, strict=True):
            tokens = tokens + attn(norm(tokens) + numbers)
        tokens = tokens + self.ff(last_norm(tokens))
        return x + rearrange(self.proj_out(tokens), "(b h w) f c -> (b f) c h w", h=h, w=w)


class NoTemporal(nn.Module):
    """The identity, where a layout has no temporal layer."""

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return `(b f) c h w` unchanged."""
        return x


def after_conv(channels: int, config: UNetConfig, make: LayerFactory) -> nn.Module:
    """Make the temporal layer that follows a spatial convolution."""
    return TemporalConv(channels, config, make) if config.temporal_conv == "per_conv" else NoTemporal()


def after_first_conv(channels: int, config: UNetConfig, make: LayerFactory) -> nn.Module:
    """Make the temporal layer that follows the U-Net's first convolution."""
    if config.temporal_stem:
        return TemporalTransformer(channels, config, make, width=8 * 64, heads=8)
    return after_conv(channels, config, make)


def after_resblock(
    channels: int, config: UNetConfig, make: LayerFactory, *, alone: bool = False
) -> nn.Module:
    """Make the temporal layer that follows a ResBlock; `alone` is one without a spatial transformer after it."""
    if config.temporal_conv == "per_resblock":
        return TemporalConvStack(channels, config, make)
    if alone and config.temporal_attention == "transformer" and config.temporal_at != "transformers":
        return TemporalTransformer(channels, config, make)
    return NoTemporal()


def after_attention(
    channels: int, config: UNetConfig, make: LayerFactory, *, middle: bool = False
) -> nn.Module:
    """Make the temporal layer that follows a spatial transformer; `middle` is that of the middle block."""
    if middle and config.temporal_at == "levels":
        return NoTemporal()
    match config.temporal_attention:
        case "self":
            return TemporalAttention(channels, config, make)
        case "transformer":
            return TemporalTransformer(channels, config, make)
    return NoTemporal()
