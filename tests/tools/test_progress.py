"""Progress at the terminal: the stage's name, its count and the time left, and the duration of each stage."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from devtools.run import progress
from devtools.run.progress import Progress

PROMPT = {name: {"_meta": {"title": title}} for name, title in (("1", "Load"), ("2", "Sample"))}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that is set by hand."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def sampled(value: float) -> dict[str, Any]:
    return {"nodes": {"2": {"value": value, "max": 5}}}


def test_a_stage_says_how_long_it_will_still_take(monkeypatch: pytest.MonkeyPatch, clock: Any) -> None:
    """The first step, before which a model is loaded, is no measure of the others."""
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    shown = Progress(PROMPT)
    shown("execution_start", {})
    shown("executing", {"node": "1"})
    clock.now = 2.0
    shown("executing", {"node": "2"})
    for value, now in ((1, 30.0), (2, 33.0), (4, 39.0)):
        clock.now = now
        shown("progress_state", sampled(value))
    clock.now = 42.0
    shown.close()
    lines = [" ".join(line.split()) for line in re.split(r"[\r\n]+", terminal.getvalue()) if line.strip()]
    assert lines == [
        "[........................] 1/2 Load 0 s",
        "2.0 s Load",
        "[........................] 2/2 Sample 2 s",
        "[####....................] 2/2 Sample 1/5 30 s",
        "[#########...............] 2/2 Sample 2/5, about 9 s left 33 s",
        "[###################.....] 2/2 Sample 4/5, about 3 s left 39 s",
        "40.0 s Sample",
    ]
    assert shown.seconds == {"Load": 2.0, "Sample": 40.0}


def test_without_a_terminal_a_stage_is_one_line(monkeypatch: pytest.MonkeyPatch, clock: Any) -> None:
    log = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", log)
    shown = Progress(PROMPT)
    shown("executing", {"node": "2"})
    clock.now = 3.0
    shown("progress_state", sampled(3))
    shown.close()
    assert log.getvalue() == "     3.0 s  Sample\n"
