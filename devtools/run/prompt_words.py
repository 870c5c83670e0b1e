"""Which words of a prompt the shipped models were trained with."""

from __future__ import annotations

import re
from pathlib import Path

from .home import ROOT

# The words of the train split's captions, one a line.
FILE = ROOT / "mini" / "world" / "vocabulary.txt"
ARTICLES = {"a", "an", "the", "this", "that", "some"}
PREPOSITIONS = {"of", "on", "in", "at", "to", "from", "by", "for", "with", "without", "as", "up", "down"}
SMALL_WORDS = ARTICLES | PREPOSITIONS | {"and", "or", "is", "are", "it", "its"}
SUBJECTS = ROOT / "weights" / "vocabulary.txt"  # one subject a line: names and nouns of the train split


def read_vocabulary(path: Path = FILE) -> frozenset[str]:
    """Return the words, in lower case; empty when there is no such file."""
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else frozenset()


def read_subjects(path: Path = SUBJECTS) -> frozenset[str]:
    """Return the subjects (a word or a few), in lower case; empty when there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return frozenset(line for line in lines if line)


def known_subjects(prompt: str, subjects: frozenset[str]) -> list[str]:
    """Return the subjects that the prompt names, the longest first, without those that a longer one holds."""
    text = f" {' '.join(_words(prompt))} "
    found: list[str] = []
    for subject in sorted(subjects, key=lambda subject: (-len(subject), subject)):
        if f" {subject} " in text and not any(f" {subject} " in f" {longer} " for longer in found):
            found.append(subject)
    return found


def split_words(prompt: str, vocabulary: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the prompt's (known, unknown) words, in order, once each, without "a", "of" and their like.

    A word counts as known only as it is spelt: the text encoder has never seen any other form of it.
    """
    words = dict.fromkeys(_words(prompt))
    matter = [word for word in words if word not in SMALL_WORDS]
    return [word for word in matter if word in vocabulary], [
        word for word in matter if word not in vocabulary
    ]


def notice(prompt: str, vocabulary: frozenset[str], subjects: frozenset[str] = frozenset()) -> str:
    """Return the sentences for the person at the terminal: on the words, and on the subjects among them."""
    words = _words_notice(prompt, vocabulary)
    if not subjects:
        return words
    named = known_subjects(prompt, subjects)
    return f"{words} " + (f"Subjects: {', '.join(named)}." if named else "No known subject is named.")


def _words_notice(prompt: str, vocabulary: frozenset[str]) -> str:
    if not vocabulary:
        return "There is no list of the words that the shipped models know."
    known, unknown = split_words(prompt, vocabulary)
    if not unknown:
        return "The mini models' vocabulary has all of it."
    if not known:
        return f"The mini models' vocabulary has nothing of it ({', '.join(unknown)}): expect anything."
    return f"Not in the mini models' vocabulary: {', '.join(unknown)} (known: {', '.join(known)})."


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower().replace("'s ", " "))
