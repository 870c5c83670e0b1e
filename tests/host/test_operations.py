"""Operations of a step at Stable Diffusion 2.1's size, counted exactly, relative to the image model's.

Times are not tested: `python -m benchmarks` measures them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contenders import BARE, FIRST, OURS, TSR_CACHED, TSR_FIRST, Shape
from benchmarks.operations import operations, ratio

LIMITS = {BARE: 1.225, OURS: 1.225, FIRST: 1.262, TSR_CACHED: 1.225, TSR_FIRST: 1.575}
"""Temporal layers add 22%. The step that runs AppearNet adds 4% for one frame, and 35% for TSR's five frames."""


@pytest.mark.parametrize("name", LIMITS)
def test_a_step_computes_no_more(name: str, comfy_in_process: Path) -> None:
    assert 1.2 < ratio(name, Shape()) <= LIMITS[name]


def test_appearnet_costs_one_frame_however_long_the_clip(comfy_in_process: Path) -> None:
    def appearnet(frames: int) -> int:
        shape = replace(Shape(), frames=frames)
        return operations(FIRST, shape)[0] - operations(OURS, shape)[0]

    assert appearnet(3) == appearnet(9) > 0
