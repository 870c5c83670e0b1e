"""Captions as CLIP tokens, as ComfyUI's tokenizer of Stable Diffusion 1.x gives them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import CONTEXT_LENGTH, END_TOKEN, START_TOKEN
from ..files.paths import home_folder, tokenizer_folder
from ..messages import one_line

MAX_TEXT_TOKENS = CONTEXT_LENGTH - 2
"""Tokens of text that fit between the start and the end token."""
WORD = "a</w>"
"""A token of every CLIP vocabulary: it marks the ends of words, which those of other models do not."""


def pad_tokens(tokens: Sequence[int], *, padding: int = END_TOKEN) -> list[int]:
    """Return start token, text, end token and padding, CONTEXT_LENGTH in all; longer texts are cut off."""
    text = tokens[:MAX_TEXT_TOKENS]
    return [START_TOKEN, *text, END_TOKEN, *[padding] * (MAX_TEXT_TOKENS - len(text))]


def text_tokens(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text by a transformers `CLIPTokenizer`, without the start and the end token."""
    return list(tokenizer(text)["input_ids"][1:-1])


def choose_tokenizer(given: Path | None, clip_model: Path | None = None) -> Path:
    """Return the folder of the tokenizer: the given one, else the CLIP model's own if it has one, else ComfyUI's.

    It is loaded once, so that a wrong folder fails here, and not after hours. A model whose tokenizer this version of
    transformers cannot read, such as a lone `tokenizer.json`, counts as one without.

    Raises:
        ValueError: the folder holds no tokenizer of CLIP, or none is given and there is no ComfyUI.
    """
    if given is None and clip_model is not None:
        with suppress(ValueError):
            load_tokenizer(clip_model)
            return clip_model
    folder = tokenizer_folder(home_folder()) if given is None else given
    load_tokenizer(folder)
    return folder


def load_tokenizer(folder: str | Path) -> Any:
    """Load a transformers `CLIPTokenizer` from a local folder.

    transformers itself takes any folder: where CLIP's vocabulary is missing, every text becomes unknown tokens.

    Raises:
        ValueError: the folder holds no tokenizer of CLIP.
    """
    from transformers import CLIPTokenizer

    if not Path(folder).is_dir():  # a name would be looked up among downloaded models
        raise ValueError(_no_tokenizer(folder))
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the library behind it raises bare ones
        raise ValueError(_no_tokenizer(folder)) from error
    if WORD not in tokenizer.get_vocab():
        raise ValueError(_no_tokenizer(folder))
    return tokenizer


def _no_tokenizer(folder: str | Path) -> str:
    return (
        f"{one_line(folder)} holds no tokenizer of CLIP; expected its vocab.json and merges.txt: name their folder "
        "with --tokenizer, such as ComfyUI's comfy/sd1_tokenizer"
    )


class CaptionTokenizer:
    """CLIP's byte-pair tokenizer for plain captions of at most 75 tokens.

    ComfyUI reads parentheses as weights and starts a second chunk after 75 tokens, so both are errors here.

    Args:
        folder: folder of `vocab.json` and `merges.txt`, such as ComfyUI's `comfy/sd1_tokenizer`.

    Raises:
        ValueError: the folder holds no tokenizer of CLIP.
    """

    def __init__(self, folder: str | Path) -> None:
        self._clip = load_tokenizer(folder)
        self._tokens = lru_cache(maxsize=1 << 16)(self._tokenize)

    def _tokenize(self, text: str) -> tuple[int, ...]:
        if set(text) & set("()\\"):
            raise ValueError(f"caption {text!r} holds characters that the host reads as weights or escapes")
        return tuple(text_tokens(self._clip, text))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return the tokens of captions, int32 `n 77`.

        Raises:
            ValueError: a caption holds parentheses or backslashes, or is longer than 75 tokens.
        """
        rows = []
        for text in texts:
            tokens = self._tokens(text)
            if len(tokens) > MAX_TEXT_TOKENS:
                raise ValueError(
                    f"caption {text!r} has {len(tokens)} tokens; at most {MAX_TEXT_TOKENS} fit one chunk"
                )
            rows.append(pad_tokens(tokens))
        return torch.tensor(rows, dtype=torch.int32).reshape(len(texts), CONTEXT_LENGTH)
