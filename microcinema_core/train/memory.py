"""Memory use of this process, and gradient checkpointing, which trades time for memory."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..networks.spatial import ResBlock, SpatialTransformer

CLEAR_PEAK = Path("/proc/self/clear_refs")
"""Linux: writing "5" to it resets the peak of resident memory."""
STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the peak memory in bytes since `reset_peak`, or since the start where it cannot be reset."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if most := _status("VmHWM"):
        return most
    import resource  # Windows has none, and training on its CPU is rare

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def allocated_bytes() -> int:
    """Return the memory in use in bytes; 0 where the system does not report it."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else _status("VmRSS")


def anonymous_bytes() -> int:
    """Return the resident memory in bytes without mapped files; 0 where the system does not report it."""
    return _status("RssAnon")


def reset_peak() -> None:
    """Reset the peak that `peak_bytes` returns, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        CLEAR_PEAK.write_text("5")


def _status(field: str) -> int:
    """Return a size field of Linux's /proc/self/status in bytes; 0 on other systems."""
    if not STATUS.is_file():
        return 0
    rows = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(rows[field].split()[0]) * 1024 if field in rows else 0


def checkpoint_blocks(*networks: nn.Module) -> None:
    """Turn on gradient checkpointing of ResBlocks and transformers, with their temporal layers, in place.

    Only a block's inputs are kept; its forward pass runs again in the backward pass. Parameters keep their names.
    """
    for network in networks:
        for block in network.modules():
            if isinstance(block, ResBlock | SpatialTransformer):
                again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
                block.forward = again  # type: ignore[method-assign]
