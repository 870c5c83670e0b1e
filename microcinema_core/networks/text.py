"""The mini family's text encoder: CLIP's text transformer, small, with the host's key names and numerics.

The host runs these weights in its own CLIPTextModel (stock tokeniser, stock CLIPTextEncode); this module trains them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..vae_config import DictConfig

START_TOKEN = 49406
END_TOKEN = 49407


@dataclass(frozen=True)
class TextConfig(DictConfig):
    """Shape of the encoder. The vocabulary is that of CLIP's tokeniser."""

    vocab_size: int = 49408
    width: int = 128
    layers: int = 3
    heads: int = 4
    length: int = 77

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")

    def host_config(self) -> dict[str, Any]:
        """The same shape in the words of the host's text models (`textmodel_json_config`)."""
        return {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "hidden_act": "quick_gelu",
            "hidden_size": self.width,
            "projection_dim": self.width,
            "intermediate_size": 4 * self.width,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "max_position_embeddings": self.length,
            "vocab_size": self.vocab_size,
            "bos_token_id": START_TOKEN,
            "eos_token_id": END_TOKEN,
            "pad_token_id": END_TOKEN,
            "layer_norm_eps": 1e-5,
        }


class SelfAttention(nn.Module):
    """Causal multi-head attention."""

    def __init__(self, width: int, heads: int, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = operations.Linear(width, width, **kw)
        self.k_proj = operations.Linear(width, width, **kw)
        self.v_proj = operations.Linear(width, width, **kw)
        self.out_proj = operations.Linear(width, width, **kw)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(
            -1, -2
        )  # written out: the fused backward is slow on the CPU
        out = scores.masked_fill(later, float("-inf")).softmax(dim=-1) @ v
        return self.out_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers with CLIP's quick GELU."""

    def __init__(self, width: int, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.fc1 = operations.Linear(width, 4 * width, **kw)
        self.fc2 = operations.Linear(4 * width, width, **kw)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class Layer(nn.Module):
    """Attention and MLP, each after a layer norm, each on top of the identity."""

    def __init__(self, config: TextConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.layer_norm1 = operations.LayerNorm(config.width, **kw)
        self.self_attn = SelfAttention(config.width, config.heads, operations, **kw)
        self.layer_norm2 = operations.LayerNorm(config.width, **kw)
        self.mlp = MLP(config.width, operations, **kw)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    """Tokens and positions."""

    def __init__(self, config: TextConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.token_embedding = operations.Embedding(config.vocab_size, config.width, **kw)
        self.position_embedding = operations.Embedding(config.length, config.width, **kw)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class TextTransformer(nn.Module):
    """Embeddings, layers, final norm."""

    def __init__(self, config: TextConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, operations, **kw)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(Layer(config, operations, **kw) for _ in range(config.layers))}
        )
        self.final_layer_norm = operations.LayerNorm(config.width, **kw)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embeddings(tokens)
        for layer in cast(nn.ModuleList, self.encoder["layers"]):
            x = layer(x)
        return self.final_layer_norm(x)


class TextEncoder(nn.Module):
    """Tokens (b, length) of CLIP's tokeniser -> context (b, length, width), what cross-attention reads.

    The pooled projection of the host's class is kept for strict loading; nothing here uses it.
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
        if tokens.ndim != 2 or tokens.shape[1] > self.config.length:
            raise ValueError(
                f"tokens are {tuple(tokens.shape)}, expected (batch, at most {self.config.length})"
            )
        return self.text_model(tokens.long())


EMBEDDING_KEY = "text_model.embeddings.token_embedding.weight"


class CompactVocabulary:
    """The words of a training set, so that training holds their embeddings alone; all others stay zero."""

    def __init__(self, tokens: Tensor) -> None:
        self.words = torch.unique(tokens.long())
        self.lookup = torch.zeros(TextConfig.vocab_size, dtype=torch.long)
        self.lookup[self.words] = torch.arange(len(self.words))

    def __len__(self) -> int:
        return len(self.words)

    def compact(self, tokens: Tensor) -> Tensor:
        """Tokens as rows of the compact embedding."""
        return self.lookup[tokens.long()]

    def spread(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """A compact encoder's weights with the whole vocabulary, unseen words at zero."""
        small = state_dict[EMBEDDING_KEY]
        whole = small.new_zeros(TextConfig.vocab_size, small.shape[1])
        whole[self.words] = small
        return {**state_dict, EMBEDDING_KEY: whole}

    def gather(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `spread`."""
        return {**state_dict, EMBEDDING_KEY: state_dict[EMBEDDING_KEY][self.words]}
