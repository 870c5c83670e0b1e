"""Which words of a prompt the shipped models were trained with."""

from __future__ import annotations

import re
from pathlib import Path

from .home import ROOT

CAPTION_WORDS = ROOT / "mini" / "world" / "caption_words.txt"
"""The words of the train split's captions, one a line."""
SUBJECTS = ROOT / "weights" / "vocabulary.txt"
"""The subjects of the train split, one a line: names and nouns."""
ARTICLES = {"a", "an", "the", "this", "that", "some"}
PREPOSITIONS = {"of", "on", "in", "at", "to", "from", "by", "for", "with", "without", "as", "up", "down"}
DRAWN_WELL = {"button", "face", "flag", "heart"}
"""Words of the subjects that text to image mostly draws whole, judged by eye."""
DOUBT = "Flags, hearts, buttons and faces come out best; animals and people lose detail."
SMALL_WORDS = ARTICLES | PREPOSITIONS | {"and", "or", "is", "are", "it", "its"}


def read_caption_words(path: Path = CAPTION_WORDS) -> frozenset[str]:
    """Return the words in lower case; empty if there is no such file."""
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else frozenset()


def read_subjects(path: Path = SUBJECTS) -> frozenset[str]:
    """Return the subjects (one or more words each) in lower case; empty if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return frozenset(line for line in lines if line)


def known_subjects(prompt: str, subjects: frozenset[str]) -> list[str]:
    """Return the subjects that the prompt names, longest first, without those contained in a longer one."""
    text = f" {' '.join(_words(prompt))} "
    found: list[str] = []
    for subject in sorted(subjects, key=lambda subject: (-len(subject), subject)):
        if f" {subject} " in text and not any(f" {subject} " in f" {longer} " for longer in found):
            found.append(subject)
    return found


def split_words(prompt: str, vocabulary: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the prompt's (known, unknown) words in order, each once, without articles and prepositions.

    A word counts as known only in its exact spelling: the text encoder was trained with no other form of it.
    """
    words = [word for word in dict.fromkeys(_words(prompt)) if word not in SMALL_WORDS]
    return [word for word in words if word in vocabulary], [word for word in words if word not in vocabulary]


def notice(
    prompt: str, vocabulary: frozenset[str], subjects: frozenset[str] = frozenset(), *, drawn: bool = True
) -> str:
    """Return the message for the terminal: unknown words, the subjects that the prompt names, and what to expect.

    Args:
        prompt: the prompt.
        vocabulary: the words that are known.
        subjects: the subjects that are known.
        drawn: the subject is drawn by text to image; False for a picture of the user's.
    """
    words = _words_notice(prompt, vocabulary)
    if not subjects:
        return words
    named = known_subjects(prompt, subjects)
    if not named:
        return f"{words} No known subject is named."
    likely = DRAWN_WELL & {word for subject in named for word in subject.split()}
    doubt = "" if likely or not drawn else f" {DOUBT}"
    return f"{words} Subjects: {', '.join(named)}.{doubt}"


def _words_notice(prompt: str, vocabulary: frozenset[str]) -> str:
    if not vocabulary:
        return "The list of the shipped models' vocabulary is missing."
    known, unknown = split_words(prompt, vocabulary)
    if not unknown:
        return "The mini models' vocabulary has all of it."
    if not known:
        return f"The mini models' vocabulary has nothing of it ({', '.join(unknown)}): expect a poor result."
    return f"Not in the mini models' vocabulary: {', '.join(unknown)} (known: {', '.join(known)})."


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower().replace("'s ", " "))
