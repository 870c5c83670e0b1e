"""Graphs with faults over every input of every node, through the real host: a short, fixed part of the campaign."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("diffusers")

from devtools.check.fuzz.campaign import Campaign
from devtools.check.fuzz.suites import open_suites
from devtools.run.home import ROOT
from devtools.run.host import Host


def test_graphs_with_faults_over_every_node(comfyui: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COMFYUI_PATH", str(comfyui.path))
    with open_suites(["graphs"]) as targets:
        campaign = Campaign(targets)
        campaign.run(examples=7)
    pages = {page.stem for page in (ROOT / "web" / "docs").glob("*.md")}  # there is one for each node
    assert set(campaign.tallies) == pages
    assert not campaign.found, "\n".join(found.line() for found in campaign.found)
    assert not campaign.lacking(least=7), campaign.lacking(least=7)


@pytest.mark.long
def test_memory_stays_flat_over_many_graphs(comfyui: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that end well and graphs that are refused, in turn, in one process."""
    monkeypatch.setitem(os.environ, "COMFYUI_PATH", str(comfyui.path))
    with open_suites(["graphs"]) as targets:
        worker = targets[0].worker
        cases = [case for target in targets for case in target.good]
        cases += [
            {**case, "faults": [{"do": "link", "at": key, "value": "NaN", "bad": True}]}
            for case, key in zip(cases, ("centre_frame", "image", "images", "key_frames"), strict=False)
        ]

        def once() -> int:
            for case in cases:
                assert worker.attempt(case).verdict in ("accepted", "refused", "raw")
            return worker.memory_held()

        sizes = [once() for _ in range(8)]
    assert max(sizes[4:]) - sizes[3] < 64 * 2**20, sizes
