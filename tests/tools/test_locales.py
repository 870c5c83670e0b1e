"""The translations themselves; tests/host/test_locales.py compares them with the nodes."""

from __future__ import annotations

import json
import re

import pytest

from devtools.release import locales

each_language = pytest.mark.parametrize("language", locales.LANGUAGES)


@each_language
def test_a_translation_is_one(language: str) -> None:
    """It is not empty and not the English text, except for words that both languages share."""
    catalogue = locales.read_catalogue(language)
    same = [text for text, there in catalogue.items() if text.lower() == there.lower()]
    assert len(same) <= 8, same
    assert not [
        text for text, there in catalogue.items() if len(text) > 25 and (text == there or len(there) < 5)
    ]


@each_language
def test_options_and_numbers_survive(language: str) -> None:
    """Menu options and file names are not translated, and numbers are kept."""
    words = r"\b(?:spade|add_encdec|add_dec|concat|crop|pad|stretch|models/\w+|donor|2n)\b"
    for text, there in locales.read_catalogue(language).items():
        assert not [word for word in re.findall(words, text) if word not in there], there
        numbers = set(re.findall(r"\d+", text)) - {"1"}
        assert numbers <= set(re.findall(r"\d+", there)), there


@pytest.mark.parametrize("language", ("en", *locales.LANGUAGES))
def test_the_front_end_reads_it_as_it_is_meant(language: str) -> None:
    """The front end's message format gives these characters a meaning."""
    text = (locales.FOLDER / language / "nodeDefs.json").read_text(encoding="utf-8")

    def strings(value: object) -> list[str]:
        if isinstance(value, dict):
            return [found for part in value.values() for found in strings(part)]
        return [str(value)]

    assert not [one for one in strings(json.loads(text)) if re.search(r"[{}|@]", one)]
