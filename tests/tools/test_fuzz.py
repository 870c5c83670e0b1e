"""The campaign sees a planted fault of each kind, and finds none in the readers of files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from devtools.check.fuzz import planted
from devtools.check.fuzz.campaign import Campaign, Target, attempt
from devtools.check.fuzz.files.cases import damages
from devtools.check.fuzz.files.damage import damaged
from devtools.check.fuzz.suites import open_suites
from devtools.check.fuzz.worker import Worker

KINDS = {
    "missing_key": "raw",
    "text_of_torch": "raw",
    "not_a_number": "raw",
    "takes_all": "silent",
    "gives_nan": "silent",
    "hangs": "hang",
    "sleeps": "hang",
    "ends": "crash",
    "is_killed": "crash",
    "is_greedy": "crash",
}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(planted.__name__, limit=0.5, memory=2**27)
    yield worker
    worker.stop()


def target(worker: Worker, name: str, largest: int = 0) -> Target:
    faults = st.integers(0, largest).map(
        lambda n: [{"do": "planted", "at": "weight", "value": n, "bad": True}]
    )
    good = [{"target": name, "faults": []}]
    return Target(name, worker, good, faults.map(lambda drawn: {"target": name, "faults": drawn}))


def test_each_planted_fault_is_seen(worker: Worker) -> None:
    campaign = Campaign([target(worker, name) for name in (*KINDS, "refuses")])
    campaign.run(examples=2)
    assert {found.target: found.outcome.verdict for found in campaign.found} == KINDS
    assert campaign.tallies["refuses"].verdicts == {"accepted": 1, "refused": 1}
    assert "| refuses | 2 | 1 | 1 | 1 | 0 | 0 | 0 | 0 |" in campaign.table()


def test_each_fault_of_a_list_is_tried_alone(worker: Worker) -> None:
    """All of them, though nothing is drawn beside."""
    one = target(worker, "fails_beyond_a_limit")
    for value in (planted.LIMIT - 1, planted.LIMIT):
        fault = {"do": "planted", "at": "weight", "value": value, "bad": True}
        one.each.append({"target": one.name, "faults": [fault]})
    campaign = Campaign([one])
    campaign.run(examples=1, rounds=0)
    (found,) = campaign.found
    assert found.case["faults"][0]["value"] == planted.LIMIT
    assert campaign.tallies[one.name].verdicts == {"accepted": 1, "refused": 1, "raw": 1}


def test_a_fault_is_made_small_and_its_line_runs_it_again(worker: Worker) -> None:
    lines: list[str] = []
    one = target(worker, "fails_beyond_a_limit", 10**6)
    campaign = Campaign([one], report=lambda found: lines.append(found.line()))
    campaign.run(examples=50)
    (found,) = campaign.found
    assert found.case["faults"][0]["value"] == planted.LIMIT
    again = json.loads(shlex.split(lines[0].splitlines()[1])[-1])
    assert attempt(worker, again).verdict == "raw"
    again["faults"][0]["value"] -= 1
    assert attempt(worker, again).verdict == "refused"


def test_a_run_that_tries_or_refuses_too_little_says_so(worker: Worker) -> None:
    campaign = Campaign([target(worker, "refuses"), target(worker, "takes_all")])
    campaign.run(examples=2)
    lacking = "\n".join(campaign.lacking(least=50))
    assert "refuses: 2 cases, at least 50 were expected" in lacking
    assert "takes_all: none of" in lacking and "refuses: none of" not in lacking


def test_every_damage_that_is_drawn_can_be_made(tmp_path: Path) -> None:
    """A tensor that one fault removes has no other fault."""
    good = tmp_path / "good.safetensors"
    save_file({"a.weight": torch.zeros(2, 3), "b.weight": torch.ones(4)}, good)
    keys = ["a.weight", "b.weight"]
    about = {"keys": keys, "later": keys[1:], "metadata": {}, "parts": [], "folder": False}
    about |= dict.fromkeys(("finite", "whole", "shaped"), keys)

    @settings(max_examples=400, deadline=None, database=None)
    @given(damages(about))
    def made(faults: list[dict[str, Any]]) -> None:
        assert faults
        damaged(good, faults, tmp_path / "bad.safetensors")

    made()


def test_malformed_files_over_every_reader() -> None:
    pytest.importorskip("diffusers")
    with open_suites(["files"]) as targets:
        campaign = Campaign(targets)
        campaign.run(examples=16)
    assert not campaign.found, "\n".join(found.line() for found in campaign.found)
    assert not campaign.lacking(least=16), campaign.lacking(least=16)
