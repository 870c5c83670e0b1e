"""Captions of the mini world: templates over names and keywords; and the words that they can contain.

`python -m mini.world.captions [--home DIR] [--out FILE]` writes the vocabulary of the train split.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from microcinema_core.files.paths import emoji_folder, home_folder

from .backgrounds import COLOURS
from .emoji import Emoji, read_catalogue
from .render import Motion

MOTION_PHRASES: dict[Motion, tuple[str, ...]] = {
    "left": ("moving left", "moving to the left"),
    "right": ("moving right", "moving to the right"),
    "up": ("moving up", "rising"),
    "down": ("moving down", "sinking"),
    "towards": ("moving towards the camera", "coming closer"),
    "away": ("moving away from the camera", "going away"),
}
BACKGROUND_WORDS = ("on", "a", "an", "background", "gradient")
NOT_VERBS = frozenset(
    """being building ceiling clothing earring evening king lightning morning nothing pudding ring sibling
    spring string thing viking wedding wing""".split()  # noqa: SIM905
)
# Keywords with these words would say a motion that is not there ("leftwards hand, left").
_MOTION_WORDS = frozenset(
    """away camera closer coming down going left move moving right rising sinking to towards up""".split()  # noqa: SIM905
)
_PLURALS = frozenset(("people", "men", "women"))


def usable_keywords(emoji: Emoji) -> list[str]:
    """The keywords without those that would be read as a direction."""
    return [word for word in emoji.keywords if not set(words_of(word)) & _MOTION_WORDS]


def verbs(emoji: Emoji) -> list[str]:
    """The keywords that say what is going on, such as `galloping`."""
    said = set(emoji.name.split())
    return [
        word
        for word in usable_keywords(emoji)
        if word.endswith("ing") and len(word) > 4 and word.isalpha() and not {word} & (NOT_VERBS | said)
    ]


def subject(emoji: Emoji) -> str:
    """The name, with the gender where the sequence spells one out that the name does not say."""
    name = re.sub(r"^flag (?=\w)", "flag of ", emoji.name) if emoji.id.startswith("1f1") else emoji.name
    words = set(name.split())
    if len(emoji.gender) == 1 and not words & {"man", "woman", "men", "women", "boy", "girl"}:
        return f"{emoji.gender[0]} {name}"
    return name


def with_article(noun: str) -> str:
    """`a horse`, `an owl`, `hot springs`."""
    if noun.split()[0] in _PLURALS or (noun.endswith("s") and not noun.endswith("ss")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def make_captions(
    emoji: Emoji,
    rng: np.random.Generator,
    *,
    count: int,
    motion: Motion | None = None,
    colour: str | None = None,
    gradient: bool = False,
) -> list[str]:
    """`count` captions of one clip. An added motion is always said; keywords and the background sometimes."""
    return [_one(emoji, rng, motion=motion, colour=colour, gradient=gradient) for _ in range(count)]


def _one(
    emoji: Emoji, rng: np.random.Generator, *, motion: Motion | None, colour: str | None, gradient: bool
) -> str:
    skin = " and ".join(emoji.skin) if emoji.skin and rng.random() < 0.75 else ""
    moves = str(rng.choice(MOTION_PHRASES[motion])) if motion else ""
    place = _background_phrase(rng, colour=colour, gradient=gradient)
    listed = rng.random() < 0.4
    head = _keyword_list(emoji, rng, skin) if listed else _sentence(emoji, rng, skin)
    parts = [head, moves, place]
    return (", " if listed else " ").join(part for part in parts if part)


def _sentence(emoji: Emoji, rng: np.random.Generator, skin: str) -> str:
    name = subject(emoji)
    text = with_article(name) if rng.random() < 0.75 else name
    if skin:
        text += f" with {skin}"
    if (acts := verbs(emoji)) and rng.random() < 0.5:
        text += f" {rng.choice(acts)}"
    return text


def _keyword_list(emoji: Emoji, rng: np.random.Generator, skin: str) -> str:
    keywords = usable_keywords(emoji)
    kept = rng.permutation(len(keywords))[: rng.integers(0, min(4, len(keywords)) + 1)]
    words = [subject(emoji), *([skin] if skin else []), *(keywords[i] for i in kept)]
    if len(kept) >= 3 and rng.random() < 0.2:
        words = words[1:]
    return ", ".join(words)


def _background_phrase(rng: np.random.Generator, *, colour: str | None, gradient: bool) -> str:
    if colour and rng.random() < 0.5:
        return f"on {with_article(colour)} background"
    if gradient and rng.random() < 0.25:
        return "on a gradient background"
    return ""


def words_of(text: str) -> list[str]:
    """The words of a prompt or caption, as the vocabulary counts them."""
    return re.findall(r"[a-z0-9]+", text.lower().replace("'s ", " "))


def vocabulary(entries: Iterable[Emoji]) -> list[str]:
    """All words that captions of these emoji can contain, sorted."""
    texts = [phrase for phrases in MOTION_PHRASES.values() for phrase in phrases]
    texts += [*BACKGROUND_WORDS, *COLOURS, "with", "and"]
    for entry in entries:
        texts += [subject(entry), *usable_keywords(entry), *entry.skin]
    return sorted({word for text in texts for word in words_of(text)})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.captions",
        description="Write the words of the train split's captions, one a line.",
    )
    parser.add_argument("--home", help="default: $MICROCINEMA_HOME, else the user's cache directory")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("vocabulary.txt"))
    options = parser.parse_args(arguments)
    words = vocabulary(read_catalogue(emoji_folder(home_folder(options.home)), "train"))
    options.out.write_text("\n".join(words) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(words)} words in {options.out}\n")


if __name__ == "__main__":
    main()
