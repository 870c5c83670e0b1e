"""The conformance bench in CI: every node of the host is equal, or not applicable for a stated reason.

It runs in a process of its own, since it loads all of the host's nodes and teaches the host two small models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.conformance.compare import BUG, EQUAL, NOT_APPLICABLE, Row, difference
from devtools.conformance.table import mark, section, unexplained
from devtools.home import ROOT
from devtools.host import Host
from devtools.page import write_section

MUST_BE_EQUAL = (
    "KSampler, sampler euler",
    "KSampler, sampler dpmpp_2m_sde",
    "KSampler, scheduler karras",
    "KSamplerAdvanced in two halves",
    "BasicGuider",
    "CFGGuider",
    "DualCFGGuider",
    "PerpNegGuider",
    "FreeU",
    "FreeU_V2",
    "PerturbedAttentionGuidance",
    "SelfAttentionGuidance",
    "HyperTile",
    "TomePatchModel",
    "RescaleCFG",
    "PatchModelAddDownscale",
    "ModelSamplingDiscrete",
    "ModelSamplingDiscrete, lcm",
    "VideoLinearCFGGuidance",
    "ConditioningSetTimestepRange",
    "areas",
    "masks",
    "GLIGENTextBoxApply",
    "two ControlNets in spans",
    "T2I-Adapter",
    "HypernetworkLoader",
    "LoRA, kohya keys",
    "LoRA, diffusers keys",
    "LoCon",
    "LoRA by hooks and keyframes",
    "ModelMergeSimple",
    "ModelMergeBlocks",
    "merge, ModelSave, load",
    "pictures as latents, denoise 0.5",
    "noise mask",
    "context windows over frames",
    "TorchCompileModel",
    "by hand: picture prompts",
    "by hand: smoothed energy",
)
"""What people use by name: none of it may drop out of the list, or become not applicable."""


@pytest.mark.slow
def test_no_row_is_unexplained(comfyui: Host, tmp_path: Path) -> None:
    rows_file = tmp_path / "rows.json"
    environ = {**os.environ, "COMFYUI_PATH": str(comfyui.path)}
    command = [sys.executable, "-m", "devtools.conformance", "--quick", "--json", str(rows_file)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert rows_file.is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    rows = [Row(**row) for row in json.loads(rows_file.read_text())]
    assert not unexplained(rows)
    assert done.returncode == 0
    equal = {row.name for row in rows if row.outcome == EQUAL}
    assert not set(MUST_BE_EQUAL) - equal
    acting = [row for row in rows if row.outcome == EQUAL and row.effect and row.effect > 1e-3]
    assert len(acting) > 100, "most rows change the host's own result, or they would prove nothing"
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    unwritten = {name for name in MUST_BE_EQUAL if f"| {name} |" not in page}
    assert not unwritten, "python3 dev.py python -m devtools.conformance --write"


def test_what_is_unexplained() -> None:
    fine = [
        Row("a", "f", EQUAL, 0.0, 0.0, 0.5, appearance="runs"),
        Row("b", "f", NOT_APPLICABLE, why="made for Flux"),
    ]
    assert not unexplained(fine)
    for bad in (
        Row("c", "f", BUG, 0.1, 0.1, why="other numbers"),
        Row("d", "f", NOT_APPLICABLE),
        Row("e", "f", EQUAL, appearance="fails: KeyError"),
    ):
        assert unexplained([*fine, bad]) == [bad]


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
