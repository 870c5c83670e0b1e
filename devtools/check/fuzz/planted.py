"""A suite of loaders with planted faults, by which the campaign shows that it sees each kind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from devtools.check.fuzz.outcome import NotFiniteError, Outcome, judged
from microcinema_core.values import checked

LIMIT = 17


def missing_key(value: int) -> None:
    """Fail with a raw KeyError."""
    empty: dict[str, int] = {}
    empty["weight"]


def text_of_torch(value: int) -> None:
    """Fail with a message of torch's."""
    raise ValueError("mat1 and mat2 shapes cannot be multiplied (693x768 and 128x64)")


def not_a_number(value: int) -> None:
    """Fail with a message of Python's."""
    int(float("nan"))


def takes_all(value: int) -> None:
    """Accept what must be refused."""
    pass


def gives_nan(value: int) -> None:
    """Give a result that is not finite."""
    raise NotFiniteError("the clip is not finite")


def hangs(value: int) -> None:
    """Compute for ever."""
    while True:
        sum(range(1000))


def sleeps(value: int) -> None:
    """Wait for ever."""
    time.sleep(3600)


def ends(value: int) -> None:
    """End the process."""
    os._exit(3)


def is_killed(value: int) -> None:
    """Crash the process."""
    os.kill(os.getpid(), signal.SIGSEGV)


def is_greedy(value: int) -> None:
    """Take more memory than is allowed."""
    bytearray(2**28)


def refuses(value: int) -> None:
    """Refuse in a sentence, as it should be."""
    checked(value, str, "weight")


def fails_beyond_a_limit(value: int) -> None:
    """Fail from `LIMIT` on, so that shrinking has something to find."""
    if value >= LIMIT:
        raise IndexError(value)
    checked(value, str, "weight")


LOADERS: dict[str, Callable[[int], None]] = {
    loader.__name__: loader
    for loader in (
        missing_key, text_of_torch, not_a_number, takes_all, gives_nan, hangs, sleeps, ends, is_killed, is_greedy,
        refuses, fails_beyond_a_limit,
    )
}  # fmt: skip


def describe() -> dict[str, Any]:
    """Return the loaders' names."""
    return {"loaders": sorted(LOADERS)}


def attempt(case: dict[str, Any]) -> Outcome:
    """Run a case with one of the loaders."""
    try:
        for fault in case["faults"]:
            LOADERS[case["target"]](fault["value"])
    except Exception as error:  # noqa: BLE001  (every error is judged)
        return judged(error)
    return Outcome("accepted")
