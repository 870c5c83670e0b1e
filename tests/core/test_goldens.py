"""The core alone reproduces the clips of the golden file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from devtools.check import goldens


@pytest.mark.parametrize("injection", goldens.INJECTIONS)
def test_the_core_samples_its_goldens(tmp_path: Path, injection: str) -> None:
    golden = load_file(goldens.FILE)[injection]
    clip = goldens.make(tmp_path, injection)
    torch.testing.assert_close(clip, golden, rtol=1e-3, atol=1e-3 * float(golden.std()))
    assert float((clip[0] - clip[2]).std()) > 0.1 * float(clip.std()), (
        "frames differ, so that their order is seen"
    )
