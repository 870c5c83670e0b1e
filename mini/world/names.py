"""Names and keywords of emoji, from emojilib's keyword file."""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .motion_split import SKIN_TONES

_WORDS = re.compile(r"[a-z0-9][a-z0-9 '-]*")
_MEMBER = "package/dist/emoji-en-US.json"


@dataclass(frozen=True)
class EmojiWords:
    """A name such as `man running`, and further keywords, all in lower case."""

    name: str
    keywords: tuple[str, ...]


def lookup_key(codepoints: str) -> str:
    """Code points without presentation selectors, skin tones and leading zeros; tags end in their end tag."""
    points = codepoints.lower().replace("_", "-").split("-")
    if any(point.startswith("e00") for point in points) and points[-1] != "e007f":
        points.append("e007f")
    return "-".join(f"{int(p, 16):x}" for p in points if p != "fe0f" and p not in SKIN_TONES)


def read_words(tarball: Path) -> dict[str, EmojiWords]:
    """`lookup_key` -> words, for every emoji of emojilib's tarball."""
    with tarfile.open(tarball, "r:gz") as archive:
        member = archive.extractfile(_MEMBER)
        if member is None:
            raise ValueError(f"{tarball} holds no {_MEMBER}; expected the npm package emojilib 4.0.3")
        entries: dict[str, list[str]] = json.load(member)
    return {
        lookup_key("-".join(f"{ord(char):x}" for char in emoji)): _clean(words)
        for emoji, words in entries.items()
    }


def _clean(words: list[str]) -> EmojiWords:
    """Plain words only: no emoticons such as ':D', no punctuation that a prompt parser would read."""
    plain = [word.lower().replace("_", " ").replace("’", "'").strip() for word in words]
    name = re.sub(r"\b(\w+) s\b", r"\1's", re.sub(r"[^a-z0-9 '-]", "", plain[0]).strip())
    keywords = [word for word in plain[1:] if _WORDS.fullmatch(word) and word != name]
    return EmojiWords(name, tuple(dict.fromkeys(keywords)))
