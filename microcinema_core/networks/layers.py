"""Small parts that every network here shares: attention, timestep embedding, layouts of frames."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Attention = Callable[..., Tensor]
"""(q, k, v, heads, **host options) -> out, all `b l (heads d)`."""


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """Scaled dot-product attention on tokens `b l (heads d)`; the host injects its own in place of it."""
    q, k, v = (rearrange(t, "b l (n d) -> b n l d", n=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b n l d -> b l (n d)")


def short_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """The same with the weights written out: for training on short sequences, where the fused CPU kernel's
    backward pass takes three to five times as long in bf16."""
    q, k, v = (rearrange(t, "b l (n d) -> b n l d", n=heads) for t in (q, k, v))
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1)
    return rearrange(weights @ v, "b n l d -> b l (n d)")


def timestep_embedding(timesteps: Tensor, dim: int, max_period: int = 10000) -> Tensor:
    """(n,) timesteps, fractions allowed -> (n, dim) float32: cosines, then sines, as Stable Diffusion has them."""
    half = dim // 2
    freqs = torch.exp(
        -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    )
    args = timesteps[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


def frame_positions(frames: int, channels: int, device: torch.device) -> Tensor:
    """(frames, channels) sinusoids of the distance to the centre frame, so that clips of 9 and 17 frames share them."""
    return timestep_embedding(torch.arange(frames, device=device) - frames // 2, channels, max_period=100)


def per_frame(value: Tensor, frames: int) -> Tensor:
    """`b ...` -> `(b f) ...`: one value per video, repeated for each of its frames."""
    return value.repeat_interleave(frames, dim=0)


def of_size(feature: Tensor, x: Tensor) -> Tensor:
    """A feature at the height and width of x. They differ where a patch of the host's shrinks some blocks, or a
    sampler enlarges the latents on its way."""
    if feature.shape[-2:] == x.shape[-2:]:
        return feature
    pictures = feature.flatten(0, -4)
    pictures = F.interpolate(pictures, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return pictures.unflatten(0, feature.shape[:-3])


def by_video(feature: Tensor, x: Tensor, frames: int) -> Tensor:
    """x `(n b f) c h w` as the view `n b f c h w` that a feature `b f c h w` or `b 1 c h w` broadcasts to."""
    return x.unflatten(0, (-1, feature.shape[0], frames))


def zero_(module: nn.Module) -> nn.Module:
    """Fills a layer's parameters with zeros, in place: a branch that starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


@dataclass(frozen=True)
class LayerFactory:
    """Makes every layer of a network, so that one definition serves training and the host.

    Attributes:
        operations: namespace of layer classes (Linear, Conv2d, GroupNorm, LayerNorm): torch.nn, or one of comfy.ops.
        dtype, device: of the weights; None is torch's default.
        attend: the attention function.
        attn_precision: dtype in which the host computes attention weights; None leaves it to the host.
    """

    operations: Any = nn
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    attend: Attention = attention
    attn_precision: torch.dtype | None = None

    def linear(self, dim: int, out: int, *, bias: bool = True) -> nn.Module:
        return self.operations.Linear(dim, out, bias=bias, dtype=self.dtype, device=self.device)

    def conv(self, channels: int, out: int, kernel: int | tuple[int, int], **kw: Any) -> nn.Module:
        return self.operations.Conv2d(channels, out, kernel, dtype=self.dtype, device=self.device, **kw)

    def group_norm(self, channels: int, eps: float = 1e-5) -> nn.Module:
        return self.operations.GroupNorm(32, channels, eps=eps, dtype=self.dtype, device=self.device)

    def layer_norm(self, dim: int) -> nn.Module:
        return self.operations.LayerNorm(dim, dtype=self.dtype, device=self.device)


class GEGLU(nn.Module):
    def __init__(self, dim: int, inner: int, make: LayerFactory) -> None:
        super().__init__()
        self.proj = make.linear(dim, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


def feed_forward(dim: int, make: LayerFactory) -> nn.Sequential:
    """GEGLU feed-forward with Stable Diffusion's key names (net.0.proj, net.2)."""
    net = nn.Sequential(GEGLU(dim, dim * 4, make), nn.Identity(), make.linear(dim * 4, dim))
    return nn.Sequential(OrderedDict(net=net))


class CrossAttention(nn.Module):
    """Multi-head attention with Stable Diffusion's key names; self-attention where no context is given."""

    def __init__(self, dim: int, heads: int, make: LayerFactory, *, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads, self.attend = heads, make.attend
        self.to_q = make.linear(dim, dim, bias=False)
        self.to_k = make.linear(context_dim or dim, dim, bias=False)
        self.to_v = make.linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.Sequential(make.linear(dim, dim), nn.Identity())

    def forward(
        self, x: Tensor, context: Tensor | None = None, value: Tensor | None = None, **options: Any
    ) -> Tensor:
        context = x if context is None else context
        value = context if value is None else value
        out = self.attend(self.to_q(x), self.to_k(context), self.to_v(value), self.heads, **options)
        return self.to_out(out)
