"""The check of one input's value: switches, videos and what a CONDITIONING holds, as links bring them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.host.pack import imported

NAN = float("nan")


@pytest.fixture(scope="module")
def fitting(comfy_in_process: Path) -> Iterator[Callable[[str, Any], Any]]:
    """`fitting(kind, value)` for an input of the name `it`, from the pack as the host loads it."""
    kinds = {"BOOLEAN": "Boolean", "VIDEO": "Video", "CONDITIONING": "Conditioning", "STRING": "String"}
    with imported("pack_of_test_fitting") as pack:
        inputs = importlib.import_module(f"{pack.__name__}.nodes.inputs")
        yield lambda kind, value: inputs.fitting(getattr(inputs.io, kinds[kind]).Input("it"), value)


def text(**more: Any) -> Any:
    return [[torch.ones(1, 7, 4), more]]


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (False, False), (0, False), (1, True), (1.0, True)]
)
def test_a_switch(fitting: Callable[[str, Any], Any], value: Any, expected: bool) -> None:
    assert fitting("BOOLEAN", value) is expected


@pytest.mark.parametrize("value", ["yes", "", [1, 2], {"a": 1}, NAN, None, 2, -5, torch.ones(2)])
def test_what_is_no_switch(fitting: Callable[[str, Any], Any], value: Any) -> None:
    with pytest.raises(ValueError, match=r"^it is .*; expected true or false"):
        fitting("BOOLEAN", value)


def test_a_video_can_give_its_parts(fitting: Callable[[str, Any], Any]) -> None:
    video = SimpleNamespace(get_components=lambda: None)
    assert fitting("VIDEO", video) is video
    for other in (object(), SimpleNamespace(get_components=3), torch.nn.Linear(1, 1)):
        with pytest.raises(ValueError, match=r"^it is .*; expected a VIDEO: connect one"):
            fitting("VIDEO", other)


def test_a_text_that_is_typed_is_not_to_be_connected(fitting: Callable[[str, Any], Any]) -> None:
    for wrong in ("a\ud800", 3, None):
        with pytest.raises(ValueError, match=r"expected a text of Unicode characters\.$"):
            fitting("STRING", wrong)


@pytest.mark.parametrize(
    "given",
    [
        text(),
        text(mask=torch.ones(3, 8, 8), mask_strength=0.5),
        text(mask=torch.ones(8, 8)),
        text(area=(4, 4, 0, 0), strength=1),
        text(start_percent=0.0, end_percent=0.5, pooled_output=None),
    ],
)
def test_a_conditioning(fitting: Callable[[str, Any], Any], given: Any) -> None:
    assert fitting("CONDITIONING", given) is given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (text(mask=torch.full((1, 8, 8), NAN)), "a mask that is empty, not finite or of another shape"),
        (text(mask=torch.ones(0, 8, 8)), "a mask that is empty"),
        (text(mask=torch.ones(64)), "a mask that is empty, not finite or of another shape"),
        (text(mask="mask"), "a mask that is empty"),
        (
            text(mask=torch.ones(1, 8, 8), mask_strength=NAN),
            "the mask_strength nan; expected a finite number",
        ),
        (text(area=(4, 4, 0, 0), strength=NAN), "the strength nan"),
        (text(strength="1"), "the strength '1'"),
        (text(start_percent=NAN), "the start_percent nan"),
        (text(end_percent=None), "the end_percent None"),
        ([[torch.ones(1, 7, 4), 3]], "expected a CONDITIONING with at least one text"),
        ([[torch.full((1, 7, 4), NAN), {}]], "texts of NaN, infinite or whole numbers"),
        ([[torch.ones(1, 7, 4, dtype=torch.int64), {}]], "texts of NaN, infinite or whole numbers"),
    ],
)
def test_what_is_no_conditioning(fitting: Callable[[str, Any], Any], given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^it .*{words}"):
        fitting("CONDITIONING", [*text(), *given])
