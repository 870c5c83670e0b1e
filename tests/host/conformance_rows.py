"""The conformance bench's quick run for some families, and what holds for every one of them.

The bench runs in a process of its own: it loads all of the host's nodes and registers small models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from devtools.check.conformance.__main__ import PAGE
from devtools.check.conformance.compare import EQUAL, Row
from devtools.check.conformance.table import mark, outcomes, unexplained
from devtools.run.home import ROOT
from devtools.run.host import VERSION, Host

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
    "TorchCompileModel",
    "by hand: picture prompts",
    "by hand: smoothed energy",
)
"""Popular nodes and features: none may disappear from the list or become not applicable."""

WINDOWS = "context windows over frames"
"""Equal too, where the host's context windows work over the frames of a batch."""
WRITE = "the page is stale: python3 dev.py python -m devtools.check.conformance --write"


def must_be_equal(comfyui: Host) -> set[str]:
    """Return the names of `MUST_BE_EQUAL`, and what later hosts add."""
    slices = "resize_cond_for_context_window" in (comfyui.path / "comfy" / "model_base.py").read_text()
    return {*MUST_BE_EQUAL, *([WINDOWS] if slices else [])}


def explained_rows(comfyui: Host, folder: Path, family: str) -> list[Row]:
    """Run the bench for the families with this text in their name, check its rows against the page, and return them."""
    file = folder / "rows.json"
    environ = {**os.environ, "COMFYUI_PATH": str(comfyui.path)}
    words = ["--quick", "--family", family, "--json", str(file)]
    command = [sys.executable, "-m", "devtools.check.conformance", *words]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert file.is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    rows = [Row(**row) for row in json.loads(file.read_text())]
    assert not unexplained(rows)
    assert done.returncode == 0
    acting = [row for row in rows if row.outcome == EQUAL and row.effect and row.effect > 1e-3]
    assert len(acting) > 100, "most rows change the host's own result, or they would prove nothing"
    written = outcomes(PAGE.read_text(encoding="utf-8"), mark(comfyui.version, []))
    if written or comfyui.version == VERSION:
        assert not must_be_equal(comfyui) - {name for name, _ in written}, WRITE
        # Some nodes need libraries that are not installed everywhere, so the written rows may have more or fewer.
        ran = {(row.name, row.family): row.outcome for row in rows}
        changed = {row: outcome for row, outcome in ran.items() if written.get(row, outcome) != outcome}
        assert not changed, WRITE
    return rows
