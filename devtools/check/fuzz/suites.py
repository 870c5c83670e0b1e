"""The suites of the campaign: what runs their cases, and how their targets are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .campaign import Target
from .files import cases as files
from .graphs import cases as graphs
from .worker import Worker

SUITES: dict[str, tuple[str, float, Callable[[Worker], list[Target]]]] = {
    "files": ("devtools.check.fuzz.files.readers", 20.0, files.targets),
    "graphs": ("devtools.check.fuzz.graphs.suite", 60.0, graphs.targets),
}
"""Module of each suite's child, the seconds of computing that a case may take, and what makes its targets."""


@contextmanager
def open_suites(names: list[str]) -> Iterator[list[Target]]:
    """Start the children of suites, and return their targets."""
    workers = [Worker(*SUITES[name][:2]) for name in names]
    try:
        yield [
            target for name, worker in zip(names, workers, strict=True) for target in SUITES[name][2](worker)
        ]
    finally:
        for worker in workers:
            worker.stop()
