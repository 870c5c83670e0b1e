"""Stable Diffusion's spatial blocks with its key names, each followed by its layer over time.

They honour the attention hooks of a stock ComfyUI model, so that whatever patches Stable Diffusion patches these.
Layers over time stay outside all hooks. Names and calling conventions: comfy/ldm/modules/attention.py of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import UNetConfig
from . import temporal
from .layers import CrossAttention, LayerFactory, by_video, feed_forward, of_size

Options = dict[str, Any]
"""The host's transformer_options: shared by all blocks of one call, patches among them."""


@dataclass(frozen=True)
class Modulation:
    """SPADE's gamma and beta for one norm, strength included: `b f c h w`, or `b 1 c h w` for all frames of a video."""

    gamma: Tensor
    beta: Tensor


def normalise(
    norm: nn.Module, x: Tensor, *, frames: int, over_clip: bool, modulation: Modulation | None
) -> Tensor:
    """Group normalisation over a frame or a clip, then eq. 2: (1 + gamma) * h + beta, around the pretrained affine.

    Where nobody asks for gradients the norm's answer is modulated in place: at this many pixels each copy counts.
    """
    if over_clip and frames > 1:
        clip = norm(rearrange(x, "(b f) c h w -> b c (f h) w", f=frames))
        h = rearrange(clip, "b c (f h) w -> (b f) c h w", f=frames)
    else:
        h = norm(x)
    if modulation is None:
        return h
    gamma, beta = of_size(modulation.gamma, h), of_size(modulation.beta, h)
    clips = by_video(gamma, h, frames)
    if torch.is_grad_enabled():
        return (clips * (1 + gamma) + beta).flatten(0, 2)
    return clips.mul_(1 + gamma).add_(beta).flatten(0, 2)


def silu(h: Tensor) -> Tensor:
    """SiLU of what nobody else holds: in place where nobody asks for gradients."""
    return F.silu(h, inplace=not torch.is_grad_enabled())


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the timestep embedding between; a 1x1 convolution where widths differ."""

    def __init__(
        self, channels: int, out: int, embed_dim: int, config: UNetConfig, make: LayerFactory
    ) -> None:
        super().__init__()
        self.over_clip = config.injected_norm == "clip"
        self.in_layers = nn.Sequential(
            make.group_norm(channels), nn.SiLU(), make.conv(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), make.linear(embed_dim, out))
        self.out_layers = nn.Sequential(
            make.group_norm(out), nn.SiLU(), nn.Identity(), make.conv(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else make.conv(channels, out, 1)
        self.in_temporal = temporal.after_conv(out, config, make)
        self.out_temporal = temporal.after_conv(out, config, make)
        self.temporal = temporal.after_resblock(out, config, make)

    def forward(
        self,
        x: Tensor,
        emb: Tensor,
        frames: int,
        *,
        first: Modulation | None = None,
        second: Modulation | None = None,
    ) -> Tensor:
        h = normalise(self.in_layers[0], x, frames=frames, over_clip=self.over_clip, modulation=first)
        h = self.in_temporal(self.in_layers[2](silu(h)), frames)
        h = h + self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        h = normalise(self.out_layers[0], h, frames=frames, over_clip=self.over_clip, modulation=second)
        h = self.out_temporal(self.out_layers[3](silu(h)), frames)
        return self.temporal(self.skip_connection(x) + h, frames)


class Downsample(nn.Module):
    """Halves height and width by a strided convolution."""

    def __init__(self, channels: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.op = make.conv(channels, channels, 3, stride=2, padding=1)
        self.temporal = temporal.after_conv(channels, config, make)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        return self.temporal(self.op(x), frames)


class Upsample(nn.Module):
    """Repeats pixels to the size of the skip that comes next, then convolves."""

    def __init__(self, channels: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.conv = make.conv(channels, channels, 3, padding=1)
        self.temporal = temporal.after_conv(channels, config, make)

    def forward(self, x: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
        return self.temporal(self.conv(F.interpolate(x, size=size, mode="nearest")), frames)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward, with the host's attention hooks around each."""

    def __init__(self, dim: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        heads = config.heads(dim)
        self.attn1 = CrossAttention(dim, heads, make)
        self.ff = feed_forward(dim, make)
        self.attn2 = CrossAttention(dim, heads, make, context_dim=config.context_dim)
        self.norm1, self.norm2, self.norm3 = (make.layer_norm(dim) for _ in range(3))
        self.heads, self.dim_head, self.attn_precision = heads, dim // heads, make.attn_precision

    def forward(self, x: Tensor, context: Tensor | None, options: Options) -> Tensor:
        extra = {k: v for k, v in options.items() if k not in ("patches", "patches_replace")}
        extra |= {"n_heads": self.heads, "dim_head": self.dim_head, "attn_precision": self.attn_precision}
        patches = options.get("patches", {})
        x = x + self._attend("attn1", self.norm1(x), None, options, extra)
        for patch in patches.get("middle_patch", ()):
            x = patch(x, extra)
        x = x + self._attend("attn2", self.norm2(x), context, options, extra)
        return x + self.ff(self.norm3(x))

    def _attend(
        self, name: str, n: Tensor, context: Tensor | None, options: Options, extra: Options
    ) -> Tensor:
        """One attention of the block with its input patch, its replacement, and its output patch."""
        layer: CrossAttention = getattr(self, name)
        patches = options.get("patches", {})
        value = None
        if f"{name}_patch" in patches:
            context = value = n if context is None else context
            for patch in patches[f"{name}_patch"]:
                n, context, value = patch(n, context, value, extra)
        replacement = _replacement(name, options)
        if replacement is None:
            n = layer(n, context, value, attn_precision=extra["attn_precision"], transformer_options=options)
        else:
            context = n if context is None else context
            value = context if value is None else value
            n = layer.to_out(replacement(layer.to_q(n), layer.to_k(context), layer.to_v(value), extra))
        for patch in patches.get(f"{name}_output_patch", ()):
            n = patch(n, extra)
        return n


def _replacement(name: str, options: Options) -> Callable[..., Tensor] | None:
    """The patch that stands in for this attention, by (block, id, index in the transformer) or by (block, id)."""
    replacements = options.get("patches_replace", {}).get(name, {})
    block = options.get("block")
    if block is None:
        return None
    return replacements.get((*block, options.get("block_index", 0)), replacements.get(block))


class SpatialTransformer(nn.Module):
    """Transformer over the pixels of each frame, then the attention over frames."""

    def __init__(self, channels: int, depth: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.use_linear = config.use_linear_in_transformer
        self.norm = make.group_norm(channels, eps=1e-6)
        self.proj_in = (
            make.linear(channels, channels) if self.use_linear else make.conv(channels, channels, 1)
        )
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, config, make) for _ in range(depth)
        )
        self.proj_out = (
            make.linear(channels, channels) if self.use_linear else make.conv(channels, channels, 1)
        )
        self.temporal = temporal.after_attention(channels, config, make)

    def forward(self, x: Tensor, context: Tensor | None, options: Options, frames: int) -> Tensor:
        options["activations_shape"] = list(x.shape)
        h, w = x.shape[-2:]
        y = self.norm(x)
        if not self.use_linear:
            y = self.proj_in(y)
        y = rearrange(
            y, "n c h w -> n (h w) c"
        ).contiguous()  # else a product for each frame, not one for all
        if self.use_linear:
            y = self.proj_in(y)
        for index, block in enumerate(self.transformer_blocks):
            options["block_index"] = index
            y = block(y, context, options)
        if self.use_linear:
            y = self.proj_out(y)
        y = rearrange(y, "n (h w) c -> n c h w", h=h, w=w)
        if not self.use_linear:
            y = self.proj_out(y)
        return self.temporal(x + y, frames)
