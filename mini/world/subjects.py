"""The subjects that the mini models have seen: names and nouns of the train split.

`python -m mini.world.subjects OUT [--home DIR]` writes them, one per line; `dev.py demo` reads them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from microcinema_core.files.paths import home_folder

from .backgrounds import COLOURS
from .captions import BACKGROUND_WORDS, MOTION_PHRASES, NOT_VERBS, subject, usable_keywords
from .emoji import Emoji, emoji_folder, read_catalogue

# fmt: off
_FUNCTION_WORDS = frozenset(
    """about above across alone below beside between else ever accept achoo add adore agree abandon abc abcd
    about after all also am an and any are as at back be been before behind but by can de did do does done el
    for from get gets give go got had has have he her here high his how if in into is it its just la let like
    little lot low made make man-made many may me more most much my na new next no non none nope not now of off
    ok okay old on one only onto open or other our out over own see set she so some soon such than that the
    their them then there these they this those too under up upon us use very was way we well what when where
    which who why will with without yay yes you your yours again always around away big both down each every
    few first good great bad best better last least less long lots main mid never nice per same short small
    large medium light dark several since still two three four five six seven eight nine ten eleven twelve
    thirty twenty zero hundred left right leftwards rightwards upwards downwards upward downward forward
    backward north south east west lower upper front side top bottom middle
    grey gray violet silver gold golden colour color coloured colored cyan magenta
    angry anxious awesome bald beautiful blond blonde cold cool crazy cute deaf dizzy dumb empty evil excellent
    fast fresh full funny happy hard hot huge joyful mad male female natural neutral pretty proud quiet ready
    rich round sad scary serious shiny shy sick silly sleepy slow soft sorry straight strong sweet tall tasty
    thick thin tired ugly warm wavy weird wet wild wise young yummy come came went ask ate buy eat say says
    said think thinks want wants wow ugh hmm haha lol omg xd duh oh ooh hey""".split()  # noqa: SIM905
)
# fmt: on
_NOT_NOUN = re.compile(r"(ing|ed|ly|ful|less|ous|ive|ical|able|ible|wards?)$")
_NOUNS = frozenset(
    """bed sled seed weed reed breed speed shed steed butterfly fly jelly lily belly doily olive detective
    vegetable table cable constable dragonfly firefly steward wizard tobacco family""".split()  # noqa: SIM905
)


def is_subject(word: str) -> bool:
    """Return whether a single word can name what a picture shows: no function, colour, motion or -ing word."""
    if len(word) < 3 or not word.isalpha() or word in _FUNCTION_WORDS | COLOURS.keys() | _PHRASE_WORDS:
        return False
    return word in _NOUNS | NOT_VERBS - {"being"} or not _NOT_NOUN.search(word)


def subjects(entries: Iterable[Emoji]) -> list[str]:
    """Return names, keywords, and the single nouns of the names, in lower case, sorted."""
    found: set[str] = set()
    for entry in entries:
        name = _plain(subject(entry))
        for text in (name, *name.split(), *map(_plain, usable_keywords(entry))):
            words = text.split()
            if is_subject(text) or (len(words) > 1 and any(map(is_subject, words))):
                found.add(text)
    return sorted(found)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("'s", "").replace("’s", "")))


_PHRASE_WORDS = frozenset(
    word
    for text in (*BACKGROUND_WORDS, *(phrase for phrases in MOTION_PHRASES.values() for phrase in phrases))
    for word in text.split()
    if word != "camera"
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.world.subjects",
        description="Write the train split's subjects, one per line.",
    )
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--home", help="default: $MICROCINEMA_HOME, else the user's cache directory")
    options = parser.parse_args(arguments)
    found = subjects(read_catalogue(emoji_folder(home_folder(options.home)), "train"))
    options.out.write_text("\n".join(found) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {len(found)} subjects to {options.out}\n")


if __name__ == "__main__":
    main()
