"""Times side by side: a contender and the floor take turns, so that what slows the machine slows both."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass

import torch

from microcinema_core.train.memory import forget_peak, held, peak

from .contenders import ALL, Contender, Shape, Step


@dataclass(frozen=True)
class Timed:
    """Rounds of one contender beside the floor, in seconds; the floor's are per frame of the contender's.

    working: most bytes that a step took beyond what was held before it.
    """

    name: str
    seconds: list[float]
    floor: list[float]
    working: int
    floor_working: int

    @property
    def ratios(self) -> list[float]:
        return [own / floor for own, floor in zip(self.seconds, self.floor, strict=True)]

    def show(self) -> str:
        """Median of the rounds' ratios, and their range: with five rounds it holds the true median 94 times of 100."""
        ratios = self.ratios
        return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def seconds(step: Step, device: str) -> float:
    """Of one call, its work on the device included."""
    _wait(device)
    started = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - started


def working(step: Step, device: str) -> int:
    """Most bytes that a call takes beyond what is held already."""
    give_back()
    forget_peak()
    before = held()
    step()
    _wait(device)
    return max(0, peak() - before)


@torch.no_grad()
def take_turns(name: str, shape: Shape, floor: Contender, *, rounds: int) -> Timed:
    """Build a contender, warm both up (their memory is measured then), and time them in turns.

    The floor must have been built for the same shape: frames, size, precision.
    """
    own = ALL[name](shape)
    memory = [working(one.step, shape.device) for one in (floor, own)]
    times: list[list[float]] = [[], []]
    for turn in range(rounds):
        pair = list(zip((floor, own), times, strict=True))
        for one, seen in pair if turn % 2 == 0 else reversed(pair):
            seen.append(seconds(one.step, shape.device))
    return Timed(name, times[1], times[0], memory[1], memory[0])


def give_back() -> None:
    """Return to the system what was freed, so that a later call's memory is not found in an earlier one's."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than Linux's usual one
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
