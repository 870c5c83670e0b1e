"""What a node shows while it runs for long: how far it is, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .host import show_text

INTERVAL = 1.0
"""Seconds between two texts."""
SHORT = 5.0
"""Runs that take fewer seconds than this show nothing."""


class RemainingTime:
    """A count that is shown in the running node, with the time left, and in the end the time taken.

    The first item is not measured: the host may load the model before it.

    Args:
        items: what is counted, in the plural: "steps".
        total: their number.
        clock: returns the time in seconds.
    """

    def __init__(self, items: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.items, self.total, self.clock = items, total, clock
        self.start = self.shown = clock()
        self.first: tuple[float, float] | None = None

    def show(self, done: float) -> None:
        """Report that `done` items are finished."""
        now = self.clock()
        if self.first is None:
            self.first = (done, now)
        elif done >= self.total:
            if now - self.start >= SHORT:
                items = self.items if self.total > 1 else self.items.removesuffix("s")
                show_text(f"{self.total} {items} in {in_words(now - self.start)}")
        elif done > self.first[0] and now - self.shown >= INTERVAL:
            left = (now - self.first[1]) * (self.total - done) / (done - self.first[0])
            if now - self.start + left >= SHORT:
                show_text(f"{int(done)} of {self.total} {self.items}, about {in_words(left)} left")
                self.shown = now


def in_words(seconds: float) -> str:
    """Return a duration as people say it: `40 s`, `3 min`, `2 h 5 min`."""
    if round(seconds) < 120:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def with_remaining_time(callback: Callable[..., None], steps: int) -> Callable[..., None]:
    """Return a sampling callback that also shows the remaining time of so many steps."""
    remaining = RemainingTime("steps", steps)

    def show(step: int, *arguments: Any) -> None:
        callback(step, *arguments)
        remaining.show(step + 1)

    return show
