"""What a running node says of the time left: right for an even pace, silent for short runs, in words of people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def said(comfy_in_process: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the node has shown so far."""
    from microcinema_core.adapter import remaining_time

    texts: list[str] = []
    monkeypatch.setattr(remaining_time, "show_text", texts.append)
    return texts


def run(*, steps: int, first: float, each: float) -> None:
    """Take some steps, the first of which takes longer."""
    from microcinema_core.adapter.remaining_time import RemainingTime

    now = 0.0
    remaining = RemainingTime("steps", steps, clock=lambda: now)
    for step in range(steps):
        now += each if step else first
        remaining.show(step + 1)


def test_the_time_left_is_that_of_the_pace(said: list[str]) -> None:
    """The first step, before which the model may have been loaded, is no measure."""
    run(steps=5, first=60.0, each=10.0)
    assert said == [
        "2 of 5 steps, about 30 s left",
        "3 of 5 steps, about 20 s left",
        "4 of 5 steps, about 10 s left",
        "5 steps in 100 s",
    ]


def test_one_item_is_said_in_the_singular(said: list[str]) -> None:
    """A window of TSR counts by its steps."""
    from microcinema_core.adapter.remaining_time import RemainingTime

    now = 0.0
    remaining = RemainingTime("windows", 1, clock=lambda: now)
    for done in (0.5, 1.0):
        now += 10
        remaining.show(done)
    assert said[-1] == "1 window in 20 s"


def test_short_runs_say_nothing(said: list[str]) -> None:
    run(steps=20, first=0.5, each=0.1)
    assert said == []


def test_texts_are_not_more_than_one_a_second(said: list[str]) -> None:
    run(steps=101, first=0.25, each=0.25)
    assert len(said) == 26 and said[-1] == "101 steps in 25 s"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119.4, "119 s"), (119.6, "2 min"), (3570, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations_in_words(comfy_in_process: Path, seconds: float, words: str) -> None:
    from microcinema_core.adapter.remaining_time import in_words

    assert in_words(seconds) == words


def test_without_a_server_nothing_is_shown(comfy_in_process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text needs a node that runs and a server; with both, it goes to who started the run."""
    import sys
    from types import SimpleNamespace

    from comfy_execution.utils import CurrentNodeContext  # type: ignore[import-not-found]

    from microcinema_core.adapter.host import show_text

    sent: list[tuple[Any, ...]] = []
    server = SimpleNamespace(client_id="me", send_progress_text=lambda *given: sent.append(given))
    show_text("nobody runs")
    with CurrentNodeContext("prompt", "7"):
        monkeypatch.delitem(sys.modules, "server", raising=False)
        show_text("there is no server")
        module = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
        monkeypatch.setitem(sys.modules, "server", module)  # type: ignore[arg-type]
        show_text("heard")
    show_text("nobody runs")
    assert sent == [("heard", "7", "me")]
