"""What a try ended in, and how an error is judged: as a sentence for the user, or as foreign text."""

from __future__ import annotations

import dis
import os
import re
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from devtools.run.home import ROOT

Verdict = Literal["refused", "accepted", "crash", "hang", "raw", "silent"]
FAULTS: tuple[Verdict, ...] = ("crash", "hang", "raw", "silent")
"""Verdicts that fail a campaign.

crash: the process ended, or took memory out of proportion. hang: no answer in time. raw: an error that is not a
sentence. silent: a value that must be refused was accepted, or the result is not finite.
"""
LONGEST = 1000
"""Most characters of a sentence."""
_OURS = (str(ROOT / "microcinema_core"), str(ROOT / "nodes"))
_FOREIGN = re.compile(
    r"mat1 and mat2|size mismatch|shape '\[|must match the size|has no attribute|not subscriptable|unsupported operand|"
    r"indices must be|expected scalar type|positional argument|unexpected keyword|Traceback|NoneType"
)


@dataclass(frozen=True)
class Outcome:
    """The verdict on a try, and what was said or seen."""

    verdict: Verdict
    said: str = ""


class NotFiniteError(Exception):
    """Raised where an accepted input gave a result that is not finite."""


def judged(error: BaseException, name: str = "") -> Outcome:
    """Return whether an error is a sentence of the pack's own.

    Args:
        error: as it was caught.
        name: a text that the sentence has to hold, such as the file's name.
    """
    if isinstance(error, NotFiniteError):
        return Outcome("silent", str(error))
    text, fault = str(error), ""
    if not isinstance(error, ValueError) or isinstance(error, UnicodeError):
        fault = "an error of this type is no sentence"
    elif not raised_by_us(error.__traceback__):
        fault = "raised by foreign code"
    elif name not in text:
        fault = f"the sentence does not name {name}"
    fault = fault or fault_of(text)
    place = f" at {_place(error)}" if fault else ""
    said = f"{fault}: {type(error).__name__}: {text[:300]}{place}" if fault else text
    return Outcome("raw" if fault else "refused", said.encode("utf-8", "backslashreplace").decode())


def fault_of(text: str) -> str:
    """Return why a text is no sentence for a user; nothing if it is one."""
    if not text.strip() or " " not in text.strip():
        return "no sentence"
    if len(text) > LONGEST:
        return f"{len(text)} characters long"
    if text.encode("utf-8", "backslashreplace") != text.encode("utf-8", "replace"):
        return "not encodable"
    outside = text
    while (inner := re.sub(r"\([^()]*\)", "", outside)) != outside:  # a cause in brackets may be foreign
        outside = inner
    found = _FOREIGN.search(outside)
    return f"foreign text {found.group()!r}" if found else ""


def raised_by_us(trace: TracebackType | None) -> bool:
    """Return whether an error comes from a `raise` of the pack, and not from what a line of it called."""
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    code = last.tb_frame.f_code
    return _is_ours(code.co_filename) and code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _is_ours(file: str) -> bool:
    return _absolute(file).startswith(_OURS)


def _absolute(file: str) -> str:
    return os.path.abspath(file)  # noqa: PTH100  (as in ROOT, symlinks stay)


def _place(error: BaseException) -> str:
    """Return the last line of the pack that an error passed."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
    if not own:
        return "no line of the pack"
    return f"{_absolute(own[-1].filename).removeprefix(str(ROOT))}:{own[-1].lineno}"
