"""The conformance bench in CI: every node of the host is equal, or not applicable for a stated reason.

Every node is applied to an inflated MODEL here, and to PIA's in test_conformance_motion.py. AnimateDiff's MODELs, and
PIA's samplers, are left to the run by hand.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devtools.check.conformance.compare import (
    BUG,
    EQUAL,
    NOT_APPLICABLE,
    RUNS,
    SAME_AGAIN,
    Row,
    compare,
    difference,
    repeat,
)
from devtools.check.conformance.inputs import make_inputs, socket
from devtools.check.conformance.models import ALL_BLOCKS, FAMILIES, VIDEOS
from devtools.check.conformance.table import mark, outcomes, section, unexplained
from devtools.release.files import write_section
from devtools.run.host import Host
from tests.host.conformance_rows import explained_rows, must_be_equal


@pytest.mark.slow
def test_no_row_is_unexplained(comfyui: Host, tmp_path: Path) -> None:
    rows = explained_rows(comfyui, tmp_path, "SD")
    assert not must_be_equal(comfyui) - {row.name for row in rows if row.outcome == EQUAL}


def test_what_is_unexplained() -> None:
    fine = [
        Row("a", "f", EQUAL, 0.0, 0.0, 0.5, random=RUNS),
        Row("b", "f", NOT_APPLICABLE, why="made for Flux"),
    ]
    assert not unexplained(fine)
    for bad in (
        Row("c", "f", BUG, 0.1, 0.1, why="other numbers"),
        Row("d", "f", NOT_APPLICABLE),
        Row("e", "f", EQUAL, random="fails: KeyError"),
    ):
        assert unexplained([*fine, bad]) == [bad]


def test_a_second_run_has_to_give_the_same() -> None:
    import torch

    world: Any = SimpleNamespace(random=None, made={"a": torch.ones(2)}, using=lambda model: nullcontext())
    row = Row("a", "f", EQUAL, random=RUNS)
    assert repeat(world, row, lambda world: torch.ones(2)).random == SAME_AGAIN
    for case in (lambda world: torch.zeros(2), lambda world: torch.ones(3), lambda world: world.nothing):
        again = repeat(world, row, case)
        assert again.random.startswith("fails") and unexplained([again]) == [again]
    refused = Row("a", "f", NOT_APPLICABLE, why="of Flux")
    assert repeat(world, refused, lambda world: torch.ones(2)) is refused


def test_a_socket_that_nobody_listed_is_a_bug() -> None:
    world: Any = SimpleNamespace(family=FAMILIES[0], stock=None, using=lambda model: nullcontext())
    row = compare(world, "new node", lambda world: socket(world, "NEW_SOCKET", "x"), None)
    assert (row.outcome, unexplained([row])) == (BUG, [row])
    assert row.why.startswith("needs NEW_SOCKET")
    row = compare(world, "Flux node", lambda world: socket(world, "MODEL_PATCH", "x"), None)
    assert row.outcome == NOT_APPLICABLE and not unexplained([row])


def test_inputs_that_hold_others_are_made() -> None:
    """ComfyUI 0.33 describes two kinds: several inputs of one type, and a choice with inputs of its own."""
    number = ("FLOAT", {"default": 0.5})
    template = {"input": {"required": {"value": number}}, "min": 2}
    several = {"template": {**template, "names": ["a", "b", "c"]}}
    counted = {"template": {**template, "prefix": "n"}}
    choice = {
        "options": [{"key": "one", "inputs": {"required": {"x": number}}}, {"key": "two", "inputs": {}}]
    }
    described = {
        "several": ("COMFY_AUTOGROW_V3", several),
        "counted": ("COMFY_AUTOGROW_V3", counted),
        "choice": ("COMFY_DYNAMICCOMBO_V3", choice),
    }
    world: Any = None
    node = SimpleNamespace(INPUT_TYPES=lambda: {"required": described, "optional": {"new": ("NEW_SOCKET",)}})
    assert make_inputs(world, node, {}) == {
        "several": {"a": 0.5, "b": 0.5},
        "counted": {"n0": 0.5, "n1": 0.5},
        "choice": {"choice": "one", "x": 0.5},
    }


def test_the_page_is_read_as_it_is_written() -> None:
    families = (*FAMILIES, *VIDEOS, ALL_BLOCKS)
    rows = [Row("a", family.name, EQUAL) for family in families]
    rows += [Row("b", family.name, NOT_APPLICABLE, why="of Flux") for family in families[:2]]
    rows += [Row("c", families[0].name, EQUAL), Row("c", families[1].name, BUG, why="other numbers")]
    text = section(rows, version="1", arguments=[], command="x")
    page = f"<!-- {mark('1', [])} -->\n{text}<!-- end of {mark('1', [])} -->\n"
    assert outcomes(page, mark("1", [])) == {(row.name, row.family): row.outcome for row in rows}
    assert outcomes(page, mark("2", [])) == {}


def test_a_section_of_the_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nText.\n")
    for version, outcome in (("1", BUG), ("2", EQUAL), ("1", EQUAL)):
        text = section([Row("node", "f", outcome)], version=version, arguments=[], command="x")
        write_section(page, mark(version, []), text)
    text = page.read_text()
    assert text.startswith("# Title\n\nText.\n")
    assert text.count("## ComfyUI 1") == text.count("## ComfyUI 2") == 1
    assert "| BUG |" not in text


def test_difference_is_relative() -> None:
    import torch

    ones = torch.ones(4)
    assert difference(ones * 1.01, ones) == pytest.approx(0.01, rel=1e-3)
    assert difference(ones, ones) == 0
    assert difference(ones * float("nan"), ones) == float("inf")
