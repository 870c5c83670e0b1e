"""Captions as tokens in tables, from which a GPU puts them together: a subject's beginnings, and endings for all.

CLIP's tokens are those of single words, so a caption's tokens are those of its beginning (the subject, as a sentence or
as a list of keywords) and of its ending (the motion and the background). The probabilities are those of `captions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from microcinema_core.config import CONTEXT_LENGTH, END_TOKEN, START_TOKEN
from microcinema_core.data.tokens import CaptionTokenizer

from .backgrounds import COLOURS
from .captions import MOTION_PHRASES, make_captions, with_article
from .emoji import Emoji
from .render import MOTIONS

HEADS = 8
"""Beginnings of each subject; half of its captions name keywords."""
WORDINGS = 2
"""Phrases of each motion."""
PLAIN, GRADIENT = 0, 1 + len(COLOURS)
"""Numbers of the backgrounds that a caption may name: none, the colours from 1, a gradient."""
COLOUR_NAMED, GRADIENT_NAMED = 0.5, 0.25
"""Probabilities that a caption names a flat background's colour, or a gradient."""
_JOINT = {False: " ", True: ", "}


@dataclass(frozen=True)
class CaptionBank:
    """Token tables.

    Attributes:
        heads: beginnings, int32 `n HEADS l`, padded with zeros.
        head_lengths: their lengths, `n HEADS`.
        listed: which of them are lists, bool `n HEADS`.
        tails: endings by whether they continue a list, motion phrase (0 for none, then each motion's wordings in turn)
            and background, int32 `2 m b l`.
        tail_lengths: their lengths, `2 m b`.
    """

    heads: Tensor
    head_lengths: Tensor
    listed: Tensor
    tails: Tensor
    tail_lengths: Tensor

    @classmethod
    def of(cls, tensors: dict[str, Tensor], device: torch.device) -> CaptionBank:
        """Build the bank from an archive's tensors."""
        return cls(**{field.name: tensors[field.name].to(device) for field in fields(cls)})

    @property
    def empty(self) -> Tensor:
        """The empty prompt's tokens, int32 `77`."""
        tokens = self.heads.new_full((CONTEXT_LENGTH,), END_TOKEN)
        tokens[0] = START_TOKEN
        return tokens

    def compose(self, subjects: Tensor, heads: Tensor, phrases: Tensor, backgrounds: Tensor) -> Tensor:
        """Return captions as tokens, int32 `n 77`.

        Args:
            subjects: numbers of the subjects, (n,).
            heads: which of their beginnings, (n,).
            phrases: which motion phrase, as in `tails`, (n,).
            backgrounds: which background is named, (n,).
        """
        listed = self.listed[subjects, heads].long()
        first, second = self.heads[subjects, heads], self.tails[listed, phrases, backgrounds]
        middle = 1 + self.head_lengths[subjects, heads, None].long()
        end = middle + self.tail_lengths[listed, phrases, backgrounds, None].long()
        place = torch.arange(CONTEXT_LENGTH, device=subjects.device).expand(len(subjects), -1)
        head = first.gather(1, (place - 1).clamp(0, first.shape[1] - 1))
        tail = second.gather(1, (place - middle).clamp(0, second.shape[1] - 1))
        tokens = torch.where(place < middle, head, torch.where(place < end, tail, END_TOKEN))
        return torch.where(place == 0, START_TOKEN, tokens).int()


def make_bank(entries: Sequence[Emoji], tokenizer: Path, *, seed: int) -> dict[str, Tensor]:
    """Return the bank's tensors for these subjects.

    Raises:
        ValueError: the tokens of a caption are not those of its parts.
    """
    encode = CaptionTokenizer(tokenizer)

    def tokens(text: str) -> list[int]:
        return [int(number) for number in encode([text])[0] if number not in (START_TOKEN, END_TOKEN)]

    phrases = ["", *(phrase for motion in MOTIONS for phrase in MOTION_PHRASES[motion])]
    grounds = [
        "",
        *(f"on {with_article(colour)} background" for colour in COLOURS),
        "on a gradient background",
    ]
    tails = [[[_tail(p, b, listed) for b in grounds] for p in phrases] for listed in (False, True)]
    flat = [tokens(text) for of_kind in tails for of_phrase in of_kind for text in of_phrase]
    heads, listed = _heads(entries, seed)
    for text, is_list in zip(heads[::7], listed[::7], strict=True):
        tail = tails[is_list][1][2]
        if tokens(text + tail) != tokens(text) + tokens(tail):
            raise ValueError(f"the tokens of {text + tail!r} are not those of {text!r} and {tail!r}")
    found = [tokens(text) for text in heads]
    shape = (len(entries), HEADS)
    return {
        "heads": _padded(found).view(*shape, -1),
        "head_lengths": torch.tensor([len(one) for one in found], dtype=torch.int32).view(shape),
        "listed": torch.tensor(listed).view(shape),
        "tails": _padded(flat).view(2, len(phrases), len(grounds), -1),
        "tail_lengths": torch.tensor([len(one) for one in flat], dtype=torch.int32).view(2, len(phrases), -1),
    }


def _tail(phrase: str, ground: str, listed: bool) -> str:
    return "".join(_JOINT[listed] + part for part in (phrase, ground) if part)


def _heads(entries: Sequence[Emoji], seed: int) -> tuple[list[str], list[bool]]:
    """Draw captions without motion and background. A comma makes a list of one: single names continue with spaces."""
    rng = np.random.default_rng(seed)
    texts = [text for entry in entries for text in make_captions(entry, rng, count=HEADS)]
    return texts, ["," in text for text in texts]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    table = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int32)
    for number, row in enumerate(rows):
        table[number, : len(row)] = torch.tensor(row, dtype=torch.int32)
    return table
