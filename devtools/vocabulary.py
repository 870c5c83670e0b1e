"""What the shipped models know: `weights/vocabulary.txt`, one subject a line (a word or a few)."""

from __future__ import annotations

import re
from pathlib import Path

from .home import ROOT

FILE = ROOT / "weights" / "vocabulary.txt"


def read_vocabulary(path: Path = FILE) -> list[str]:
    """Return the subjects, in the file's order; empty when there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def known_subjects(prompt: str, vocabulary: list[str]) -> list[str]:
    """Return the subjects that the prompt names (whole words, singular or plural), the longest first."""
    text = f" {_plain(prompt)} "
    found = [subject for subject in vocabulary if f" {_plain(subject)} " in text]
    return sorted(set(found), key=lambda subject: (-len(subject), subject))


def notice(prompt: str, vocabulary: list[str]) -> str:
    """Return the sentence for the person at the terminal."""
    if not vocabulary:
        return "There is no list of the subjects that the shipped models know."
    known = known_subjects(prompt, vocabulary)
    if known:
        return f"In the model's vocabulary: {', '.join(known)}."
    some = ", ".join(vocabulary[:: max(1, len(vocabulary) // 8)][:8])
    return f"Nothing in this prompt is in the model's vocabulary (it knows {some} ...): expect anything."


def _plain(text: str) -> str:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return " ".join(
        word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word for word in words
    )
