"""The conformance bench in CI: PIA's MODEL under every node of the host, twice, in opposite orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.check.conformance.compare import EQUAL, SAME_AGAIN
from devtools.run.host import Host
from tests.host.conformance_rows import explained_rows, must_be_equal

NOT_RUN = {
    "T2I-Adapter",  # needs all blocks
    "SelfAttentionGuidance",  # the host's own fails on four levels of such small latents
}
"""Nodes that must be equal on an inflated MODEL and do not run on this one; samplers are left out too."""


@pytest.mark.long
def test_pia_is_the_stock_model_under_every_node(comfyui: Host, tmp_path: Path) -> None:
    rows = explained_rows(comfyui, tmp_path, "PIA")
    equal = {row.name for row in rows if row.outcome == EQUAL}
    missing = must_be_equal(comfyui) - NOT_RUN - equal
    assert not {name for name in missing if not name.startswith("KSampler, ")}
    assert {row.random for row in rows} == {"", SAME_AGAIN}
