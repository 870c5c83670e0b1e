"""Which words of a prompt the shipped models were trained with."""

from __future__ import annotations

import re
from pathlib import Path

from .home import ROOT

FILE = (
    ROOT / "microcinema_core" / "data" / "vocabulary.txt"
)  # one word a line: the captions of the train split
SMALL_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "on",
        "in",
        "at",
        "to",
        "from",
        "by",
        "for",
        "with",
        "without",
        "and",
        "or",
        "is",
        "are",
        "its",
        "it",
        "this",
        "that",
        "as",
        "up",
        "down",
        "some",
        "one",
        "two",
    ]
)


def read_vocabulary(path: Path = FILE) -> frozenset[str]:
    """Return the words, in lower case; empty when there is no such file."""
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else frozenset()


def split_words(prompt: str, vocabulary: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the prompt's (known, unknown) words, in order, once each, without "a", "of" and their like.

    A word counts as known only as it is spelt: the text encoder has never seen any other form of it.
    """
    words = dict.fromkeys(re.findall(r"[a-z0-9]+", prompt.lower().replace("'s ", " ")))
    matter = [word for word in words if word not in SMALL_WORDS]
    return [word for word in matter if word in vocabulary], [
        word for word in matter if word not in vocabulary
    ]


def notice(prompt: str, vocabulary: frozenset[str]) -> str:
    """Return the sentence for the person at the terminal."""
    if not vocabulary:
        return "There is no list of the words that the shipped models know."
    known, unknown = split_words(prompt, vocabulary)
    if not unknown:
        return "The mini models' vocabulary has all of it."
    if not known:
        return f"The mini models' vocabulary has nothing of it ({', '.join(unknown)}): expect anything."
    return f"Not in the mini models' vocabulary: {', '.join(unknown)} (known: {', '.join(known)})."
