"""Captions as the host's SD 1 tokenizer gives them: 49406 ... 49407, then 49407 to length 77."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LENGTH = 77
START, END = 49406, 49407


class CaptionTokenizer:
    """CLIP's byte-pair tokens of plain captions.

    `folder` holds `vocab.json` and `merges.txt` (the host's `comfy/sd1_tokenizer`). The host reads
    parentheses as weights and starts a second chunk after 75 tokens, so both are errors here.
    """

    def __init__(self, folder: str | Path) -> None:
        from transformers import CLIPTokenizer

        self._clip: Any = CLIPTokenizer.from_pretrained(str(folder))
        self._ids = lru_cache(maxsize=1 << 16)(self._tokenize)

    def _tokenize(self, text: str) -> tuple[int, ...]:
        if set(text) & set("()\\"):
            raise ValueError(f"caption {text!r} holds characters that the host reads as weights or escapes")
        return tuple(self._clip(text)["input_ids"][1:-1])

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """int32 (n, 77).

        Raises:
            ValueError: a caption with parentheses, or one longer than 75 tokens.
        """
        rows = []
        for text in texts:
            ids = self._ids(text)
            if len(ids) > LENGTH - 2:
                raise ValueError(
                    f"caption {text!r} has {len(ids)} tokens; at most {LENGTH - 2} fit one chunk"
                )
            rows.append([START, *ids, END, *[END] * (LENGTH - 2 - len(ids))])
        return torch.tensor(rows, dtype=torch.int32).reshape(len(texts), LENGTH)
