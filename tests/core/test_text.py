import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from microcinema_core.networks.text import (
    EMBEDDING_KEY,
    CompactVocabulary,
    TextConfig,
    TextEncoder,
)

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


def test_unseen_words_are_zero_and_seen_ones_survive() -> None:
    tokens = torch.tensor([[49406, 320, 3306, 49407, 49407]])
    vocabulary = CompactVocabulary(tokens)
    assert len(vocabulary) == 4
    small = TextEncoder(TextConfig(vocab_size=4, width=16, layers=1, heads=2))
    whole = TextEncoder(TextConfig(width=16, layers=1, heads=2))
    whole.load_state_dict(vocabulary.spread(small.state_dict()))
    torch.testing.assert_close(small(vocabulary.compact(tokens)), whole(tokens))
    rows = whole.state_dict()[EMBEDDING_KEY].abs().sum(dim=1)
    assert int((rows > 0).sum()) == 4
    torch.testing.assert_close(
        vocabulary.gather(whole.state_dict())[EMBEDDING_KEY], small.state_dict()[EMBEDDING_KEY]
    )


def test_too_long_is_told() -> None:
    with pytest.raises(ValueError, match="at most 12"):
        TextEncoder(TINY)(torch.zeros(1, 13, dtype=torch.long))
