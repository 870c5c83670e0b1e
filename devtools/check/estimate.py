"""Peak memory of sampling in ComfyUI against the estimate that it reserves, `memory_required` of the MODEL.

`python3 dev.py python -m devtools.check.estimate [--device cuda] [--size full]`. ComfyUI frees that much of a card
before it samples: an estimate that is too small ends in running out of memory, one that is far too large unloads models
for nothing. On the CPU the storages that a step makes are counted instead.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from typing import Any

import torch

from benchmarks.contenders import boot_host
from benchmarks.memory import most_held
from devtools.check import tiny
from devtools.check.cuda import MIB, SIZES
from devtools.run.home import say
from devtools.run.host import find_host
from microcinema_core.config import CONTEXT_LENGTH, AppearNetConfig
from microcinema_core.files.checkpoint import Checkpoint
from microcinema_core.model_spec import UNTRAINED

BRANCHES = 2
"""Prompt and empty prompt in one batch."""


def measure(size: str, device: str) -> tuple[float, float]:
    """Return the estimate and the peak, in bytes, of sampling two steps of a clip with an AppearNet.

    Args:
        size: one of `cuda.SIZES`.
        device: "cuda" or "cpu"; the host is started for it.
    """
    boot_host(find_host(os.environ.get("COMFYUI_PATH")), device)
    import comfy.sample  # type: ignore[import-not-found]

    from microcinema_core.adapter import apply_appearance
    from microcinema_core.adapter.loading import build_appearnet, build_model

    chosen = SIZES[size]
    config, net = chosen.unet, AppearNetConfig(chosen.unet, hidden=chosen.hidden)
    dtype = torch.float16 if device == "cuda" else torch.float32
    parts = {"unet": tiny.unet_weights(config), "appearnet": tiny.appearnet_weights(net)}
    file = Checkpoint(
        {name: {key: value.to(dtype) for key, value in part.items()} for name, part in parts.items()},
        replace(UNTRAINED, role="base"),
        {"unet": config.to_dict(), "appearnet": net.to_dict()},
        name="random weights",
    )
    shape = (chosen.frames, config.in_channels, chosen.side, chosen.side)
    centre = {"samples": torch.randn(1, *shape[1:])}
    model = apply_appearance(build_model(file), build_appearnet(file), centre)
    text: list[list[Any]] = [[torch.randn(1, CONTEXT_LENGTH, config.context_dim), {}]]

    def sample() -> None:
        with torch.inference_mode():
            comfy.sample.sample(
                model, torch.randn(shape), 2, 4.0, "euler", "normal", text, text, torch.zeros(shape), seed=1,
                disable_pbar=True,
            )  # fmt: skip

    estimate = model.memory_required([BRANCHES * shape[0], *shape[1:]])
    sample()
    if device != "cuda":
        return estimate, most_held(sample)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    sample()
    torch.cuda.synchronize()
    return estimate, torch.cuda.max_memory_allocated() - before


def main(arguments: list[str] | None = None) -> int:
    """Print the estimate and the peak; returns 1 where the peak is larger."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.check.estimate",
        description="Compare the memory of sampling with the estimate.",
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu")
    )
    parser.add_argument("--size", choices=SIZES, default="full", help="of the networks; default: %(default)s")
    options = parser.parse_args(arguments)
    estimate, peak = measure(options.size, options.device)
    say(
        f"{options.size} size on {options.device}: ComfyUI reserves {estimate / MIB:.1f} MiB, and sampling took "
        f"{peak / MIB:.1f} MiB"
    )
    return 0 if peak <= estimate else 1


if __name__ == "__main__":
    sys.exit(main())
