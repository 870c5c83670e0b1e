"""Stable Diffusion's spatial blocks with its key names, each followed by its temporal layer.

They honour the attention hooks of a stock ComfyUI model, so that every patch for Stable Diffusion works on them too.
Temporal layers stay outside all hooks. Names and calling conventions: comfy/ldm/modules/attention.py of the host.
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
from .appearance_attention import AppearanceAttention
from .layers import CrossAttention, ImageContext, LayerFactory, feed_forward, resize_like, split_videos

TransformerOptions = dict[str, Any]
"""The host's `transformer_options`, patches included; all blocks of one call share it."""


@dataclass(frozen=True)
class Modulation:
    """SPADE's gamma and beta of Eq. 2 for one norm, strength included.

    Both are `b f c h w`, or `b 1 c h w` where one serves all frames of a video.
    """

    gamma: Tensor
    beta: Tensor


def normalise(
    norm: nn.Module, x: Tensor, *, frames: int, over_clip: bool, modulation: Modulation | None
) -> Tensor:
    """Apply group normalisation (Eq. 1) and SPADE's (1 + gamma) * h + beta (Eq. 2) to `(n b f) c h w`.

    The pretrained affine of the norm stays, inside the modulation. Without gradients the norm's output is modulated
    in place, which saves copies of large activations.

    Args:
        norm: GroupNorm of c channels.
        x: activations.
        frames: frames per video, f.
        over_clip: whether statistics are taken over a whole video instead of each frame.
        modulation: gamma and beta; None leaves the plain norm.
    """
    if over_clip and frames > 1:
        clip = norm(rearrange(x, "(b f) c h w -> b c (f h) w", f=frames))
        h = rearrange(clip, "b c (f h) w -> (b f) c h w", f=frames)
    else:
        h = norm(x)
    if modulation is None:
        return h
    gamma, beta = resize_like(modulation.gamma, h), resize_like(modulation.beta, h)
    clips = split_videos(h, gamma, frames)
    if torch.is_grad_enabled():
        return (clips * (1 + gamma) + beta).flatten(0, 2)
    return clips.mul_(1 + gamma).add_(beta).flatten(0, 2)


def silu_maybe_inplace(h: Tensor) -> Tensor:
    """Apply SiLU, in place unless gradients are enabled; the caller must not use h afterwards."""
    return F.silu(h, inplace=not torch.is_grad_enabled())


class ResBlock(nn.Module):
    """Norm, SiLU and convolution, twice, with the timestep embedding added in between.

    A temporal layer follows each convolution or the block, by the config; `alone` is a block without a spatial
    transformer after it. The skip is a 1x1 convolution where the numbers of channels differ.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        embed_dim: int,
        config: UNetConfig,
        make: LayerFactory,
        *,
        alone: bool = False,
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
        self.temporal = temporal.after_resblock(out, config, make, alone=alone)

    def forward(
        self,
        x: Tensor,
        emb: Tensor,
        frames: int,
        *,
        first: Modulation | None = None,
        second: Modulation | None = None,
    ) -> Tensor:
        """Map features `(b f) channels h w` and embeddings `(b f) e` to `(b f) out h w`.

        first and second are SPADE's modulations of the two norms; None leaves a norm plain.
        """
        h = normalise(self.in_layers[0], x, frames=frames, over_clip=self.over_clip, modulation=first)
        h = self.in_temporal(self.in_layers[2](silu_maybe_inplace(h)), frames)
        h = h + self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        h = normalise(self.out_layers[0], h, frames=frames, over_clip=self.over_clip, modulation=second)
        h = self.out_temporal(self.out_layers[3](silu_maybe_inplace(h)), frames)
        return self.temporal(self.skip_connection(x) + h, frames)


class Downsample(nn.Module):
    """A strided convolution that halves height and width, and its temporal layer."""

    def __init__(self, channels: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.op = make.conv(channels, channels, 3, stride=2, padding=1)
        self.temporal = temporal.after_conv(channels, config, make)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `(b f) c h w` to `(b f) c ceil(h/2) ceil(w/2)`."""
        return self.temporal(self.op(x), frames)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling to the size of the next skip, a convolution, and its temporal layer."""

    def __init__(self, channels: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.conv = make.conv(channels, channels, 3, padding=1)
        self.temporal = temporal.after_conv(channels, config, make)

    def forward(self, x: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
        """Map `(b f) c h w` to `(b f) c H W`, where `size` is (H, W)."""
        return self.temporal(self.conv(F.interpolate(x, size=size, mode="nearest")), frames)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text and feed-forward, with the host's attention hooks."""

    def __init__(self, dim: int, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        heads = config.heads(dim)
        self.attn1 = CrossAttention(dim, heads, make)
        self.ff = feed_forward(dim, make)
        sees_image = bool(config.image_context)
        self.attn2 = CrossAttention(dim, heads, make, context_dim=config.context_dim, sees_image=sees_image)
        self.norm1, self.norm2, self.norm3 = (make.layer_norm(dim) for _ in range(3))
        self.heads, self.dim_head, self.attn_precision = heads, dim // heads, make.attn_precision

    def forward(
        self,
        x: Tensor,
        context: Tensor | None,
        options: TransformerOptions,
        image: ImageContext | None = None,
    ) -> Tensor:
        """Map tokens `n (h w) c` to tokens of the same shape; context and image tokens are `n l d`."""
        extra = {k: v for k, v in options.items() if k not in ("patches", "patches_replace")}
        extra |= {"n_heads": self.heads, "dim_head": self.dim_head, "attn_precision": self.attn_precision}
        patches = options.get("patches", {})
        x = x + self._attend("attn1", self.norm1(x), None, options, extra)
        for patch in patches.get("middle_patch", ()):
            x = patch(x, extra)
        x = x + self._attend("attn2", self.norm2(x), context, options, extra, image)
        return x + self.ff(self.norm3(x))

    def _attend(
        self,
        name: str,
        n: Tensor,
        context: Tensor | None,
        options: TransformerOptions,
        extra: TransformerOptions,
        image: ImageContext | None = None,
    ) -> Tensor:
        """Run one attention of the block with its input patch, its replacement and its output patch."""
        layer: CrossAttention = getattr(self, name)
        patches = options.get("patches", {})
        value = None
        if f"{name}_patch" in patches:
            context = value = n if context is None else context
            for patch in patches[f"{name}_patch"]:
                n, context, value = patch(n, context, value, extra)
        replacement = _replacement(name, options)
        attending = {"attn_precision": extra["attn_precision"], "transformer_options": options}
        if replacement is None:
            n = layer(n, context, value, image, **attending)
        else:
            context = n if context is None else context
            value = context if value is None else value
            q = layer.to_q(n)
            n = replacement(q, layer.to_k(context), layer.to_v(value), extra)
            n = layer.to_out(layer.with_image(n, q, image, **attending))
        for patch in patches.get(f"{name}_output_patch", ()):
            n = patch(n, extra)
        return n


def _replacement(name: str, options: TransformerOptions) -> Callable[..., Tensor] | None:
    """Return the patch that replaces this attention, by (block, id, transformer index) or (block, id)."""
    replacements = options.get("patches_replace", {}).get(name, {})
    block = options.get("block")
    if block is None:
        return None
    return replacements.get((*block, options.get("block_index", 0)), replacements.get(block))


class SpatialTransformer(nn.Module):
    """Transformer over the pixels of each frame, then its temporal attention (section 3.1).

    `feature` is the channels of AppearNet's feature for the block, where tokens also attend to it, else 0.
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        config: UNetConfig,
        make: LayerFactory,
        *,
        middle: bool = False,
        feature: int = 0,
    ) -> None:
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
        self.appearance_attention = AppearanceAttention(channels, feature, make) if feature else None
        self.temporal = temporal.after_attention(channels, config, make, middle=middle)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None,
        options: TransformerOptions,
        frames: int,
        image: ImageContext | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """Map `(b f) c h w` to `(b f) c h w`; context and image tokens are `(b f) l d`, given `v g k h w`."""
        options["activations_shape"] = list(x.shape)
        h, w = x.shape[-2:]
        y = self.norm(x)
        if not self.use_linear:
            y = self.proj_in(y)
        # Contiguous, so that the projection is one matrix product instead of one per frame.
        y = rearrange(y, "n c h w -> n (h w) c").contiguous()
        if self.use_linear:
            y = self.proj_in(y)
        for index, block in enumerate(self.transformer_blocks):
            options["block_index"] = index
            y = block(y, context, options, image)
        if self.use_linear:
            y = self.proj_out(y)
        y = rearrange(y, "n (h w) c -> n c h w", h=h, w=w)
        if not self.use_linear:
            y = self.proj_out(y)
        x = x + y
        del y  # the temporal layer's activations are large
        if self.appearance_attention is not None and given is not None:
            x = self.appearance_attention(x, given, frames)
        return self.temporal(x, frames)
