"""A small text encoder: CLIP's text transformer (Radford et al. 2021).

Key names and numerics are the host's. The host runs these weights in its own CLIPTextModel, with its own tokeniser;
this module trains them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..config import TextConfig

EMBEDDING_KEY = "text_model.embeddings.token_embedding.weight"
"""State-dict key of the token embeddings in `TextEncoder`."""


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which a token attends to itself and to earlier tokens."""

    def __init__(self, width: int, heads: int, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = operations.Linear(width, width, **kw)
        self.k_proj = operations.Linear(width, width, **kw)
        self.v_proj = operations.Linear(width, width, **kw)
        self.out_proj = operations.Linear(width, width, **kw)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `b l c` to `b l c`."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        # Written out, as the fused kernel's backward pass is slow on a CPU.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        out = scores.masked_fill(later, float("-inf")).softmax(dim=-1) @ v
        return self.out_proj(out.transpose(1, 2).flatten(2))


class QuickGELUMLP(nn.Module):
    """Two linear layers with CLIP's quick GELU, x * sigmoid(1.702 x), between them."""

    def __init__(self, width: int, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.fc1 = operations.Linear(width, 4 * width, **kw)
        self.fc2 = operations.Linear(4 * width, width, **kw)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `b l c` to `b l c`."""
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class TextLayer(nn.Module):
    """Self-attention and MLP, each after a layer norm and with a skip connection."""

    def __init__(self, config: TextConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.layer_norm1 = operations.LayerNorm(config.width, **kw)
        self.self_attn = CausalSelfAttention(config.width, config.heads, operations, **kw)
        self.layer_norm2 = operations.LayerNorm(config.width, **kw)
        self.mlp = QuickGELUMLP(config.width, operations, **kw)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `b l c` to `b l c`."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TextEmbeddings(nn.Module):
    """Learnt embeddings of tokens and positions."""

    def __init__(self, config: TextConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.token_embedding = operations.Embedding(config.vocab_size, config.width, **kw)
        self.position_embedding = operations.Embedding(config.length, config.width, **kw)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids `b l` to `b l c`."""
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class TextTransformer(nn.Module):
    """Embeddings, layers and a final layer norm."""

    def __init__(self, config: TextConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config, operations, **kw)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(TextLayer(config, operations, **kw) for _ in range(config.layers))}
        )
        self.final_layer_norm = operations.LayerNorm(config.width, **kw)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids `b l` to `b l c`."""
        x = self.embeddings(tokens)
        for layer in cast(nn.ModuleList, self.encoder["layers"]):
            x = layer(x)
        return self.final_layer_norm(x)


class TextEncoder(nn.Module):
    """The text encoder, whose output is the context of the U-Net's cross-attention.

    The pooled projection exists for strict loading into the host's class; nothing here uses it.

    Args:
        config: vocabulary, width, layers, heads and the greatest length of a prompt.
        operations: namespace of layer classes, torch.nn or one of the host's.
        dtype: dtype of the weights; None is torch's default.
        device: device of the weights; None is torch's default.
    """

    def __init__(
        self,
        config: TextConfig,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTransformer(config, operations, dtype=dtype, device=device)
        self.text_projection = operations.Linear(
            config.width, config.width, bias=False, dtype=dtype, device=device
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode token ids `b l` of CLIP's tokeniser to a context `b l width`.

        Raises:
            ValueError: the tokens are not two-dimensional, or a prompt is longer than the config's length.
        """
        if tokens.ndim != 2 or tokens.shape[1] > self.config.length:
            raise ValueError(
                f"tokens are {tuple(tokens.shape)}, expected (batch, at most {self.config.length})"
            )
        return self.text_model(tokens.long())
