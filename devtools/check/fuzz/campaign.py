"""The campaign: hypothesis makes cases for each target, a child runs them, faults are shrunk and counted."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisException
from hypothesis.strategies import SearchStrategy, sampled_from

from .outcome import FAULTS, Outcome
from .worker import Worker

Case = dict[str, Any]
SHRINK_SECONDS = 40.0
"""After a fault was found, the time in which a smaller case of it is looked for."""


@dataclass(frozen=True)
class Target:
    """A loader or node.

    Attributes:
        name: its name, the cases' `"target"`.
        worker: the child that runs its cases.
        good: cases without a fault, which have to be accepted.
        cases: what hypothesis draws from.
        each: cases of one fault, all of which are tried once before: what is drawn may miss any one of them.
    """

    name: str
    worker: Worker
    good: list[Case]
    cases: SearchStrategy[Case]
    each: list[Case] = field(default_factory=list)


@dataclass
class Tally:
    """Counts of one target: how many cases had a value that must be refused, and the verdicts."""

    bad: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)

    @property
    def tried(self) -> int:
        """All cases."""
        return sum(self.verdicts.values())


@dataclass(frozen=True)
class Found:
    """A fault: the smallest case that shows it."""

    target: str
    case: Case
    outcome: Outcome

    def line(self) -> str:
        """Return the fault, and the command that runs its case again."""
        again = json.dumps(self.case)
        quoted = "'" + again.replace("'", "'\\''") + "'"
        return (
            f"{self.outcome.verdict}: {self.target}: {self.outcome.said}\n"
            f"    python3 dev.py python -m devtools.check.fuzz --again {quoted}"
        )


class _FaultFound(AssertionError):
    """Tells hypothesis that a case failed."""


class Campaign:
    """A run over all targets.

    Args:
        targets: what is tried.
        base_seed: the same seed makes the same cases.
        report: called with each fault as it is found.
    """

    def __init__(
        self, targets: list[Target], *, base_seed: int = 0, report: Callable[[Found], None] = lambda _: None
    ) -> None:
        self.targets, self.base_seed, self.report = targets, base_seed, report
        self.tallies = {target.name: Tally() for target in targets}
        self.found: list[Found] = []
        self._known: set[str] = set()

    def run(self, *, examples: int, rounds: int = 1, until: float | None = None) -> None:
        """Try every target: good cases first, then those of one fault, then drawn ones.

        Args:
            examples: cases of each target in a round.
            rounds: how many rounds there are, each with other cases.
            until: go on with further rounds until this time (of `time.monotonic`).
        """
        for target in self.targets:
            for case in target.good:
                outcome = self._count(target, case)
                if outcome.verdict != "accepted":
                    said = f"a good case was not accepted ({outcome.verdict}): {outcome.said}"
                    self._note([Found(target.name, case, Outcome("raw", said))])
        for target in self.targets:
            for case in target.each:
                if (outcome := self._count(target, case)).verdict in FAULTS:
                    self._note([Found(target.name, case, outcome)])
        number = 0
        while number < rounds or (until is not None and time.monotonic() < until):
            for target in self.targets:
                if until is None or time.monotonic() < until:
                    self._explore(target, examples, 1000 * self.base_seed + number, until)
            number += 1

    def _explore(self, target: Target, examples: int, number: int, until: float | None) -> None:
        """Draw cases of a target; the first new fault is shrunk."""
        failed: dict[str, Found] = {}
        started: list[float] = []

        @seed(number)
        @settings(
            max_examples=examples, database=None, deadline=None, report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        @given(target.cases)
        def tried(case: Case) -> None:
            now = time.monotonic()
            if (started and now > started[0] + SHRINK_SECONDS) or (until is not None and now > until):
                return
            if json.dumps(case) not in failed:  # hypothesis runs a failing case again: a hang once is enough
                outcome = self._count(target, case, shrinking=bool(started))
                if outcome.verdict not in FAULTS or _kind(target.name, outcome) in self._known:
                    return
                failed[json.dumps(case)] = Found(target.name, case, outcome)
                started.append(now)
            raise _FaultFound

        try:
            tried()
        except (_FaultFound, HypothesisException):
            self._note(list(failed.values()))

    def _note(self, failed: list[Found]) -> None:
        """Keep the smallest case of each kind of fault; of equals the last, as hypothesis goes on to simpler ones."""
        by_size = sorted(enumerate(failed), key=lambda one: (len(json.dumps(one[1].case)), -one[0]))
        for _, fault in by_size:
            kind = _kind(fault.target, fault.outcome)
            if kind not in self._known:
                self._known.add(kind)
                self.found.append(fault)
                self.report(fault)

    def _count(self, target: Target, case: Case, *, shrinking: bool = False) -> Outcome:
        """Run a case and count it; a smaller form of one that failed is not counted again."""
        outcome = attempt(target.worker, case)
        if not shrinking:
            tally = self.tallies[target.name]
            tally.verdicts[outcome.verdict] += 1
            tally.bad += is_bad(case)
        return outcome

    def lacking(self, least: int) -> list[str]:
        """Return what makes the counts worthless: too few cases, or no refusal where there had to be some."""
        lines = []
        for name, tally in self.tallies.items():
            if tally.tried < least:
                lines.append(f"{name}: {tally.tried} cases, at least {least} were expected")
            if tally.bad and not tally.verdicts["refused"]:
                lines.append(f"{name}: none of {tally.bad} cases with invalid values was refused")
            if not tally.verdicts["accepted"]:
                lines.append(f"{name}: no case was accepted")
        return lines

    def table(self) -> str:
        """Return the counts as a table in Markdown."""
        heads = ("", "tried", "with an invalid value", "refused", "accepted", *FAULTS)
        rows = [
            (name, tally.tried, tally.bad, *(tally.verdicts[key] for key in ("refused", "accepted", *FAULTS)))
            for name, tally in self.tallies.items()
        ]
        rows.append(("all", *(sum(row[place] for row in rows) for place in range(1, len(heads)))))  # type: ignore[misc]
        lines = [heads, ("---",) * len(heads), *rows]
        return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def attempt(worker: Worker, case: Case) -> Outcome:
    """Run a case; one with a value that must be refused is silent where it was accepted."""
    outcome = worker.attempt(case)
    if outcome.verdict == "accepted" and is_bad(case):
        first = next(fault for fault in case["faults"] if fault.get("bad"))
        return Outcome(
            "silent", f"accepted {first['do']} of {first.get('at', 'all')}: {first.get('value')!r}"
        )
    return outcome


def one_of_list(values: Sequence[Any]) -> SearchStrategy[Any]:
    """Return a strategy that draws one of the values, by its place: long lists are slow to print."""
    return sampled_from(range(len(values))).map(lambda place: values[place])


def is_bad(case: Case) -> bool:
    """Return whether a case has a fault that must be refused."""
    return any(fault.get("bad") for fault in case["faults"])


def _kind(target: str, outcome: Outcome) -> str:
    """Return what is alike in the faults of one cause: the text without numbers, names and values."""
    if outcome.verdict == "silent":
        return f"{target} silent {outcome.said.split(': ')[0]}"
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\S*\.safetensors|-?\d[\d.e+]*", "#", outcome.said)
    place = re.search(r" at (/\S+)$", outcome.said)
    return f"{target} {outcome.verdict} {place.group(1) if place else text[:120]}"
