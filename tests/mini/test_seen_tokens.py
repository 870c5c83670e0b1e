"""Training holds the embeddings of the tokens that occur; the file has those of the whole vocabulary."""

from __future__ import annotations

import torch

from microcinema_core.config import TextConfig
from microcinema_core.networks.text import EMBEDDING_KEY, TextEncoder
from mini.stages.text import SeenTokens


def test_unseen_words_are_zero_and_seen_ones_survive() -> None:
    tokens = torch.tensor([[49406, 320, 3306, 49407, 49407]])
    vocabulary = SeenTokens(tokens)
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
