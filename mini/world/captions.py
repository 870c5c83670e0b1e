"""Captions of the mini world: templates over names and keywords, and the words that they can contain.

`python -m mini.world.captions [--home DIR] [--out FILE]` writes the words of the train split's captions.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from microcinema_core.files.paths import home_folder

from .backgrounds import COLOURS
from .emoji import Emoji, emoji_folder, read_catalogue
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
# Keywords with these words would name a motion that does not happen ("leftwards hand, left").
_MOTION_WORDS = frozenset(
    """away camera closer coming down going left move moving right rising sinking to towards up""".split()  # noqa: SIM905
)
_PLURALS = frozenset(("people", "men", "women"))


def usable_keywords(emoji: Emoji) -> list[str]:
    """Return the keywords without those that would be read as a motion."""
    return [word for word in emoji.keywords if not set(words_of(word)) & _MOTION_WORDS]


def verbs(emoji: Emoji) -> list[str]:
    """Return the keywords that name an action, such as `galloping`."""
    named = set(emoji.name.split())
    return [
        word
        for word in usable_keywords(emoji)
        if word.endswith("ing") and len(word) > 4 and word.isalpha() and not {word} & (NOT_VERBS | named)
    ]


def subject(emoji: Emoji) -> str:
    """Return the name, with the gender that the code points spell out if the name does not contain it."""
    name = re.sub(r"^flag (?=\w)", "flag of ", emoji.name) if emoji.id.startswith("1f1") else emoji.name
    words = set(name.split())
    if len(emoji.gender) == 1 and not words & {"man", "woman", "men", "women", "boy", "girl"}:
        return f"{emoji.gender[0]} {name}"
    return name


def with_article(noun: str) -> str:
    """Return the noun with its indefinite article: `a horse`, `an owl`, `hot springs`."""
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
    """Draw `count` captions of one clip. All name its added motion; some name keywords or the background.

    Args:
        emoji: the subject.
        rng: the source of randomness.
        count: number of captions.
        motion: the clip's added motion.
        colour: name of a flat background's colour.
        gradient: whether the background is a gradient.
    """
    return [_one(emoji, rng, motion=motion, colour=colour, gradient=gradient) for _ in range(count)]


def _one(
    emoji: Emoji, rng: np.random.Generator, *, motion: Motion | None, colour: str | None, gradient: bool
) -> str:
    skin = " and ".join(emoji.skin) if emoji.skin and rng.random() < 0.75 else ""
    moving = str(rng.choice(MOTION_PHRASES[motion])) if motion else ""
    background = _background_phrase(rng, colour=colour, gradient=gradient)
    listed = rng.random() < 0.4
    head = _keyword_list(emoji, rng, skin) if listed else _sentence(emoji, rng, skin)
    parts = [head, moving, background]
    return (", " if listed else " ").join(part for part in parts if part)


def _sentence(emoji: Emoji, rng: np.random.Generator, skin: str) -> str:
    name = subject(emoji)
    text = with_article(name) if rng.random() < 0.75 else name
    if skin:
        text += f" with {skin}"
    if (actions := verbs(emoji)) and rng.random() < 0.5:
        text += f" {rng.choice(actions)}"
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
    """Split a prompt or caption into words, as `caption_words` counts them."""
    return re.findall(r"[a-z0-9]+", text.lower().replace("'s ", " "))


def caption_words(entries: Iterable[Emoji]) -> list[str]:
    """Return all words that captions of these emoji can contain, sorted."""
    texts = [phrase for phrases in MOTION_PHRASES.values() for phrase in phrases]
    texts += [*BACKGROUND_WORDS, *COLOURS, "with", "and"]
    for entry in entries:
        texts += [subject(entry), *usable_keywords(entry), *entry.skin]
    return sorted({word for text in texts for word in words_of(text)})


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.captions",
        description="Write the words of the train split's captions, one per line.",
    )
    parser.add_argument("--home", help="default: $MICROCINEMA_HOME, else the user's cache directory")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("caption_words.txt"),
        help="file to write; default: caption_words.txt beside this module",
    )
    options = parser.parse_args(arguments)
    words = caption_words(read_catalogue(emoji_folder(home_folder(options.home)), "train"))
    options.out.write_text("\n".join(words) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {len(words)} words to {options.out}\n")


if __name__ == "__main__":
    main()
