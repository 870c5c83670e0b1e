"""Time that the pack adds to the host's start, and of loading a file of Stable Diffusion 2.1's size."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from devtools.run.home import ROOT
from microcinema_core.config import AppearNetConfig, UNetConfig
from microcinema_core.files.checkpoint import write_checkpoint
from microcinema_core.files.safetensors_io import write_tensors
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.unet import UNet3D

GIB = 2**30
SECONDS, GROWTH, IMPORT = 0.5, 0.5, 0.3
"""Targets: seconds of a load, GiB on top of the mapped file, seconds added to the host's start."""


def write_files(folder: Path, config: UNetConfig) -> dict[str, Path]:
    """Write random float16 weights: our base file, and the image model's U-Net under its stock keys."""
    appearnet = AppearNetConfig(config)
    with torch.device("meta"):
        networks = {
            "unet": UNet3D(config),
            "appearnet": AppearNet(appearnet),
            "stock": UNet3D(config.as_2d()),
        }
    shapes = {part: {k: t.shape for k, t in net.state_dict().items()} for part, net in networks.items()}
    noise = torch.randn(max(s.numel() for part in shapes.values() for s in part.values())).mul_(0.02).half()
    parts = {part: {k: noise[: s.numel()].view(s) for k, s in own.items()} for part, own in shapes.items()}
    stock = {f"model.diffusion_model.{k}": t.clone() for k, t in parts.pop("stock").items()}
    files = {"ours": folder / "ours.safetensors", "stock": folder / "stock.safetensors"}
    write_tensors(files["stock"], stock, {})
    del stock
    configs: dict[str, Any] = {"unet": config, "appearnet": appearnet}
    write_checkpoint(files["ours"], parts, spec=ModelSpec("base", 0.03, 2, 9), configs=configs)
    return files


def in_own_process(*arguments: str) -> dict[str, float]:
    """Run `fresh_host` in a process of its own and return its figures."""
    command = [sys.executable, "-m", "benchmarks.fresh_host", *arguments]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(answer.splitlines()[-1]))


def table(*, rounds: int, config: UNetConfig = UNetConfig()) -> str:  # noqa: B008
    """Time our loader and the host's alternately, and the pack's import; return Markdown."""
    seen: dict[str, list[dict[str, float]]] = {"ours": [], "stock": [], "import": []}
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), config)
        sizes = {kind: path.stat().st_size / GIB for kind, path in files.items()}
        for _ in range(rounds):
            for kind, path in files.items():
                seen[kind].append(in_own_process(kind, str(path)))
            seen["import"].append(in_own_process("import"))
    lines = [
        "Float16 files in the page cache, each loaded by a newly started ComfyUI that keeps float16; median of "
        f"{rounds} runs. Targets: {SECONDS} s, {GROWTH} GiB on top of the mapped file, {IMPORT} s of start-up.",
        "",
        "| | file | seconds [range] | memory on top of the mapped file | target |",
        "|---|---|---|---|---|",
    ]
    for kind, name in (
        ("ours", "MicroCinema Checkpoint Loader"),
        ("stock", "ComfyUI, Stable Diffusion 2.1"),
    ):
        gib = statistics.median(one["gib"] for one in seen[kind])
        reached = "reached" if _median(seen[kind]) <= SECONDS and gib <= GROWTH else "**missed**"
        lines.append(
            f"| {name} | {sizes[kind]:.2f} GiB | {_show(seen[kind])} | {gib:.2f} GiB | "
            f"{reached if kind == 'ours' else ''} |"
        )
    reached = "reached" if _median(seen["import"]) <= IMPORT else "**missed**"
    return "\n".join([*lines, f"| the pack's import | | {_show(seen['import'])} | | {reached} |"]) + "\n"


def _median(seen: list[dict[str, float]]) -> float:
    return statistics.median(one["seconds"] for one in seen)


def _show(seen: list[dict[str, float]]) -> str:
    values = [one["seconds"] for one in seen]
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
