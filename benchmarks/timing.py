"""Timing against a baseline: contender and baseline alternate, so that other load slows both."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from microcinema_core.train.memory import allocated_bytes, peak_bytes, reset_peak

from .contenders import ALL, Contender, Shape, Step

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timed:
    """Seconds of a contender's steps (`seconds`) and of the baseline's (`floor`), round by round.

    working: peak bytes of a step on top of what was allocated before it.
    """

    name: str
    seconds: list[float]
    floor: list[float]
    working: int
    floor_working: int

    @property
    def ratios(self) -> list[float]:
        """Time relative to the baseline, round by round."""
        return [own / floor for own, floor in zip(self.seconds, self.floor, strict=True)]

    def show(self) -> str:
        """Format the median ratio and the range; five rounds contain the true median with probability 0.94."""
        ratios = self.ratios
        return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds of the wall clock, or of this process on all cores, which other load on the machine changes little."""


def seconds(step: Step, device: str, clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one call, including its work on the device."""
    _wait(device)
    started = clock()
    step()
    _wait(device)
    return clock() - started


def working(step: Step, device: str) -> int:
    """Return the peak bytes of a call on top of what is allocated already."""
    give_back()
    reset_peak()
    before = allocated_bytes()
    step()
    _wait(device)
    return max(0, peak_bytes() - before)


@torch.no_grad()
def in_turns(
    contenders: Sequence[Contender], device: str, *, rounds: int, clock: Clock = time.perf_counter
) -> tuple[list[list[float]], list[int]]:
    """Warm contenders up, which measures their memory, and time them in turns, every second round in reverse.

    Returns each one's seconds, round by round, and the peak bytes of each one's first step. Without rounds, the
    seconds are those of the first step.
    """
    memory, first = [], []
    for one in contenders:
        started = clock()
        memory.append(working(one.step, device))
        first.append([clock() - started])
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds):
        order = list(zip(contenders, times, strict=True))
        for one, seen in order if turn % 2 == 0 else reversed(order):
            seen.append(seconds(one.step, device, clock))
    return times if rounds else first, memory


def take_turns(name: str, shape: Shape, floor: Contender, *, rounds: int) -> Timed:
    """Build a contender, warm both up (which measures their memory), and time them alternately.

    `floor` is the baseline, built for the same shape.
    """
    times, memory = in_turns((floor, ALL[name](shape)), shape.device, rounds=rounds)
    return Timed(name, times[1], times[0], memory[1], memory[0])


def give_back() -> None:
    """Return freed memory to the system, so that a later call does not reuse it unseen."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than Linux's usual one
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
