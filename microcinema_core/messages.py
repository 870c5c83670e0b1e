"""Text for messages and reports: names and errors from elsewhere on one line, in characters that any output takes."""

from __future__ import annotations

LONGEST = 400
"""Characters that are shown of an error that a library raised."""


def one_line(text: object) -> str:
    """Return a text with escapes for line breaks, control characters and lone surrogates; it never raises."""
    try:
        plain = str(text)
    except Exception as error:  # noqa: BLE001  (a text that cannot be made is no reason to lose the message)
        plain = f"{type(text).__name__} (its text raises {type(error).__name__})"
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in plain)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


def reason(error: BaseException) -> str:
    """Return what an error says, on one line: the system's words, without number and name, for errors of files."""
    words = getattr(error, "strerror", None)
    text = one_line(words or error).strip() or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def of_file(error: OSError, folder: object = None) -> str:
    """Return the file of an error and the system's words, without the number; `folder` stands for a file without name.

    An error that is not the system's is told by its own text.
    """
    if error.strerror is None:
        return one_line(error)
    file = error.filename2 or error.filename or folder  # of two, what a finished file was to replace
    return reason(error) if file is None else f"{one_line(file)}: {reason(error)}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 video" and "2 videos"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_text(text: str) -> bool:
    """Return whether a text can be written as UTF-8: it has no lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
