"""Building blocks that the networks share: attention, embeddings, frame layouts, zero initialisation."""

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

from ..config import centre_index

AttentionFunction = Callable[..., Tensor]
"""`(q, k, v, heads, **options) -> out`; all tensors `b l (heads d)`, the options are the host's."""


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """Compute scaled dot-product attention over tokens `b l (heads d)`; the host passes its own instead."""
    q, k, v = (rearrange(t, "b l (n d) -> b n l d", n=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b n l d -> b l (n d)")


def unfused_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """Compute the same attention with an explicit weight matrix, for training on short sequences on a CPU.

    There the fused kernel's backward pass takes three to five times as long in bfloat16.
    """
    q, k, v = (rearrange(t, "b l (n d) -> b n l d", n=heads) for t in (q, k, v))
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1)
    return rearrange(weights @ v, "b n l d -> b l (n d)")


def timestep_embedding(timesteps: Tensor, dim: int, max_period: int = 10000) -> Tensor:
    """Return the sinusoidal embedding `n dim` (float32) of timesteps `n`, which may be fractional.

    Cosines come first, then sines, as in Stable Diffusion.
    """
    half = dim // 2
    freqs = torch.exp(
        -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    )
    args = timesteps[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


def frame_positions(frames: int, channels: int, device: torch.device) -> Tensor:
    """Return sinusoids `f c` of each frame's distance to the centre frame.

    Measured from the centre, positions are shared by clips of 9 and 17 frames.
    """
    distance = torch.arange(frames, device=device) - centre_index(frames)
    return timestep_embedding(distance, channels, max_period=100)


def absolute_positions(frames: int, channels: int, device: torch.device) -> Tensor:
    """Return sinusoids `f c` of each frame's number from 0, sine and cosine in turn (Vaswani et al. 2017)."""
    cosines, sines = timestep_embedding(torch.arange(frames, device=device), channels).chunk(2, dim=1)
    return torch.stack([sines, cosines], dim=-1).flatten(1)


def per_frame(value: Tensor, frames: int) -> Tensor:
    """Repeat one value per video, `b ...`, for each of its frames: `(b f) ...`."""
    return value.repeat_interleave(frames, dim=0)


def resize_like(feature: Tensor, x: Tensor) -> Tensor:
    """Resize a feature `... c h w` bilinearly to the height and width of x.

    They differ where a host's patch shrinks some blocks, or a sampler enlarges the latents between steps.
    """
    if feature.shape[-2:] == x.shape[-2:]:
        return feature
    images = feature.flatten(0, -4)
    images = F.interpolate(images, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return images.unflatten(0, feature.shape[:-3])


def split_videos(x: Tensor, feature: Tensor, frames: int) -> Tensor:
    """View x `(n b f) c h w` as `n b f c h w`, so that a feature broadcasts against it.

    The feature is `b f c h w` or `b 1 c h w`. n counts the guidance branches of a batch, such as prompt and negative
    prompt, which share the feature.
    """
    return x.unflatten(0, (-1, feature.shape[0], frames))


def zero_(module: nn.Module) -> nn.Module:
    """Zero a layer's parameters in place and mark it, so that its branch starts by contributing nothing.

    The mark is the plain attribute `starts_at_zero = True` on the layer and its submodules. Inflation builds the
    networks on the meta device, where parameters have no values, and reads the marks instead.
    """
    for submodule in module.modules():
        submodule.starts_at_zero = True  # type: ignore[assignment]
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def zero_initialised_keys(network: nn.Module) -> set[str]:
    """Return the state-dict keys of all parameters that `zero_` zeroed; works on the meta device."""
    return {
        key
        for name, module in network.named_modules()
        if getattr(module, "starts_at_zero", False)
        for key, _ in module.named_parameters(prefix=name, recurse=False)
    }


@dataclass(frozen=True)
class LayerFactory:
    """Constructor of every layer of a network, so that one definition serves training and the host.

    Attributes:
        operations: namespace of layer classes (Linear, Conv2d, GroupNorm, LayerNorm): torch.nn, or one of comfy.ops.
        dtype: dtype of the weights; None is torch's default.
        device: device of the weights; None is torch's default.
        attend: attention function.
        attn_precision: dtype in which the host computes attention weights; None leaves it to the host.
    """

    operations: Any = nn
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    attend: AttentionFunction = attention
    attn_precision: torch.dtype | None = None

    def linear(self, dim: int, out: int, *, bias: bool = True) -> nn.Module:
        """Make a Linear layer `... dim -> ... out`."""
        return self.operations.Linear(dim, out, bias=bias, dtype=self.dtype, device=self.device)

    def conv(self, channels: int, out: int, kernel: int | tuple[int, int], **kw: Any) -> nn.Module:
        """Make a Conv2d of `n channels h w` inputs with `out` channels."""
        return self.operations.Conv2d(channels, out, kernel, dtype=self.dtype, device=self.device, **kw)

    def group_norm(self, channels: int, eps: float = 1e-5) -> nn.Module:
        """Make a GroupNorm of 32 groups, as in Stable Diffusion."""
        return self.operations.GroupNorm(32, channels, eps=eps, dtype=self.dtype, device=self.device)

    def layer_norm(self, dim: int) -> nn.Module:
        """Make a LayerNorm over the last dimension."""
        return self.operations.LayerNorm(dim, dtype=self.dtype, device=self.device)


class GEGLU(nn.Module):
    """A linear layer gated by the GELU of a second one (Shazeer 2020)."""

    def __init__(self, dim: int, inner: int, make: LayerFactory) -> None:
        super().__init__()
        self.proj = make.linear(dim, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `... dim` to `... inner`."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        out = F.gelu(gate)
        # In place without gradients, because these are the largest activations of a step.
        return value * out if torch.is_grad_enabled() else out.mul_(value)


def feed_forward(dim: int, make: LayerFactory) -> nn.Sequential:
    """Make a GEGLU feed-forward on tokens `... dim` with Stable Diffusion's key names (net.0.proj, net.2)."""
    net = nn.Sequential(GEGLU(dim, dim * 4, make), nn.Identity(), make.linear(dim * 4, dim))
    return nn.Sequential(OrderedDict(net=net))


@dataclass(frozen=True)
class ImageContext:
    """Tokens of a given picture, to which frames attend beside the text.

    Attributes:
        tokens: `b l d`, one entry for each entry of the queries.
        strength: factor on what they add, or one for each entry, `b 1 1`.
    """

    tokens: Tensor
    strength: float | Tensor = 1.0


class CrossAttention(nn.Module):
    """Multi-head attention with Stable Diffusion's key names; self-attention without a context.

    Args:
        dim: channels of the queries.
        heads: attention heads.
        make: constructor of the layers.
        context_dim: channels of the context; None for those of the queries.
        sees_image: whether there are keys and values of image tokens too.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        make: LayerFactory,
        *,
        context_dim: int | None = None,
        sees_image: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.attend = heads, make.attend
        self.to_q = make.linear(dim, dim, bias=False)
        self.to_k = make.linear(context_dim or dim, dim, bias=False)
        self.to_v = make.linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.Sequential(make.linear(dim, dim), nn.Identity())
        if sees_image:
            self.to_k_ip = make.linear(context_dim or dim, dim, bias=False)
            self.to_v_ip = zero_(make.linear(context_dim or dim, dim, bias=False))

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        value: Tensor | None = None,
        image: ImageContext | None = None,
        **options: Any,
    ) -> Tensor:
        """Attend from tokens `b l dim` to a context `b m context_dim`; returns `b l dim`.

        Args:
            x: tokens of the queries.
            context: tokens of the keys; None attends to x itself.
            value: tokens of the values; None takes the context.
            image: tokens of a picture; None leaves the context alone.
            options: passed on to the attention function.
        """
        context = x if context is None else context
        value = context if value is None else value
        q = self.to_q(x)
        out = self.attend(q, self.to_k(context), self.to_v(value), self.heads, **options)
        return self.to_out(self.with_image(out, q, image, **options))

    def with_image(self, out: Tensor, q: Tensor, image: ImageContext | None, **options: Any) -> Tensor:
        """Add the attention from queries `b l dim` to image tokens to that to the context, before `to_out`."""
        if image is None:
            return out
        k, v = self.to_k_ip(image.tokens), self.to_v_ip(image.tokens)
        return out + image.strength * self.attend(q, k, v, self.heads, **options)
