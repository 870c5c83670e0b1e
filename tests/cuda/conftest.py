"""The device of each test: the CPU, at tiny size, and a CUDA card where there is one (`-m cuda` runs those alone)."""

from __future__ import annotations

import pytest
import torch

CARD = pytest.param("cuda", marks=pytest.mark.cuda)


@pytest.fixture(params=["cpu", CARD])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA card, or this torch was built without CUDA")
    return torch.device(request.param)
