"""What this process holds: the most so far on the GPU, or in memory where there is none."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

CLEAR_PEAK = Path("/proc/self/clear_refs")
"""Linux: "5" written to it makes the peak of resident memory start again."""
STATUS = Path("/proc/self/status")


def peak() -> int:
    """Bytes: the most since `forget_peak` where the system can tell, else since the start."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if most := _status("VmHWM"):
        return most
    import resource  # not on Windows, where torch on the CPU is the rare case

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held() -> int:
    """Bytes now; 0 where the system cannot tell."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else _status("VmRSS")


def anonymous() -> int:
    """Bytes of memory that is no mapped file's, now; 0 where the system cannot tell."""
    return _status("RssAnon")


def forget_peak() -> None:
    """Make the peak start again, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        CLEAR_PEAK.write_text("5")


def _status(field: str) -> int:
    """A size of Linux's page on this process, in bytes; 0 elsewhere."""
    if not STATUS.is_file():
        return 0
    rows = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(rows[field].split()[0]) * 1024 if field in rows else 0
