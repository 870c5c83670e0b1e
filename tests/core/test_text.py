"""The text encoder has the weights and numerics of CLIP's."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from microcinema_core.config import TextConfig
from microcinema_core.networks.text import TextEncoder

TINY = TextConfig(vocab_size=100, width=32, layers=2, heads=2, length=12)


def test_equals_clip_of_transformers() -> None:
    torch.manual_seed(0)
    ours = TextEncoder(TINY).eval()
    reference = CLIPTextModel(CLIPTextConfig(**TINY.host_config())).eval()
    wanted = set(reference.state_dict())
    state = {}
    for key, tensor in ours.state_dict().items():
        short = key.removeprefix("text_model.")
        state[key if key in wanted else short] = tensor
    state.pop("text_projection.weight")
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in key for key in missing)
    tokens = torch.randint(0, 100, (3, 12))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), reference(tokens).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_later_words_do_not_change_earlier_ones() -> None:
    encoder = TextEncoder(TINY).eval()
    tokens = torch.randint(0, 100, (1, 12))
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 100
    torch.testing.assert_close(encoder(tokens)[:, :6], encoder(changed)[:, :6])


def test_too_long_is_told() -> None:
    with pytest.raises(ValueError, match="at most 12"):
        TextEncoder(TINY)(torch.zeros(1, 13, dtype=torch.long))
