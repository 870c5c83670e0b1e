"""A perceiver that turns the CLIP features of a picture into image tokens, under the keys of its published files.

Formats: Doubiiu/DynamiCrafter (lvdm/modules/encoders/resampler.py), after IP-Adapter's and Flamingo's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import ResamplerConfig
from .layers import LayerFactory


class PerceiverAttention(nn.Module):
    """Attention from latents to features and latents together."""

    def __init__(self, config: ResamplerConfig, make: LayerFactory) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads, self.attend, self.attn_precision = config.heads, make.attend, make.attn_precision
        self.norm1 = make.layer_norm(config.width)
        self.norm2 = make.layer_norm(config.width)
        self.to_q = make.linear(config.width, inner, bias=False)
        self.to_kv = make.linear(config.width, 2 * inner, bias=False)
        self.to_out = make.linear(inner, config.width, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """Map features `n k c` and latents `n l c` to `n l c`."""
        latents = self.norm2(latents)
        keys, values = self.to_kv(torch.cat([self.norm1(features), latents], dim=1)).chunk(2, dim=-1)
        out = self.attend(self.to_q(latents), keys, values, self.heads, attn_precision=self.attn_precision)
        return self.to_out(out)


class Resampler(nn.Module):
    """Layers of attention and feed-forward on latents that are part of the weights."""

    def __init__(self, config: ResamplerConfig, make: LayerFactory) -> None:
        super().__init__()
        width = config.width
        latents = torch.randn(1, config.tokens, width, device=make.device) / width**0.5
        self.latents = nn.Parameter(latents.to(make.dtype or torch.get_default_dtype()))
        self.proj_in = make.linear(config.in_width, width)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(config, make), _feed_forward(width, make)])
            for _ in range(config.layers)
        )
        self.proj_out = make.linear(width, config.out_width)
        self.norm_out = make.layer_norm(config.out_width)

    def forward(self, features: Tensor) -> Tensor:
        """Map a picture's features `n k in_width` to its tokens `n tokens out_width`."""
        features = self.proj_in(features)
        tokens = self.latents.to(features).expand(features.shape[0], -1, -1)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            tokens = tokens + attention(features, tokens)
            tokens = tokens + feed_forward(tokens)
        return self.norm_out(self.proj_out(tokens))


def _feed_forward(width: int, make: LayerFactory) -> nn.Sequential:
    return nn.Sequential(
        make.layer_norm(width),
        make.linear(width, 4 * width, bias=False),
        nn.GELU(),
        make.linear(4 * width, width, bias=False),
    )
