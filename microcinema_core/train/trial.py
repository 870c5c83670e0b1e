"""`--measure`: a few real steps of a run, timed, and the memory that they take; nothing is written."""

from __future__ import annotations

import time

import torch

from .config import TrainConfig
from .memory import forget_peak, peak
from .plan import GIB
from .processes import Processes
from .stages import STAGES, Stages, build_stage
from .step import train_step
from .trainer import build


def measure(config: TrainConfig, steps: int, stages: Stages = STAGES) -> str:
    """Seconds of each step and peak memory, as text. The first step is slower: it makes the optimizer's state.

    Processor time is all threads' together: what counts on a CPU that others use as well.
    """
    started = time.monotonic()
    processes = Processes(config)
    stage = build_stage(config, stages)
    stage.prepare()
    trainer = build(config, stage, processes)
    trainer.frozen.clear()  # exact values of frozen weights, which a step does not touch and only files need
    loading = peak()
    forget_peak()
    lines = [f"loaded in {time.monotonic() - started:.0f} s, peak {loading / GIB:.2f} GiB"]
    for step in range(steps):
        started, worked = time.monotonic(), time.process_time()
        loss = float(train_step(trainer)["loss"])
        seconds, worked = time.monotonic() - started, time.process_time() - worked
        took = f"{seconds:.1f} s, {worked:.1f} s of processor time"
        lines.append(f"step {step + 1}: {took}, loss {loss:.4f}, peak so far {peak() / GIB:.2f} GiB")
    processes.wait()
    where = (
        processes.device.type if processes.device.type != "cpu" else f"cpu, {torch.get_num_threads()} threads"
    )
    return "\n".join([f"measured on {where}:", *(f"  {line}" for line in lines)])
