"""Time of a step by kind of work, beside the image model, and the share of the machine's peak rate."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from devtools.check.encoding_cost import count

from .contenders import ALL, BARE, FLOOR, OURS, Contender, Shape, Step
from .timing import seconds

PICTURES, TIME = "2D convolutions", "convolutions over frames"
PRODUCTS, ATTENTION, NORMS = "matrix products", "attention", "norms"
REST = "sums, activations, copies"
KINDS = (PICTURES, TIME, PRODUCTS, ATTENTION, NORMS, REST)
CONTENDERS = {name: ALL[name] for name in (FLOOR, BARE, OURS)}
WIDE = 2048
"""Side of the matrices whose product gives the machine's peak rate."""


def kind(name: str, shapes: list[list[int]]) -> str:
    """Classify an operation of torch by its name and the shapes of its inputs."""
    if "convolution" in name:
        return TIME if len(shapes) > 1 and shapes[1][2:] == [3, 1] else PICTURES
    if name.removeprefix("aten::") in ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn_linear"):
        return PRODUCTS
    if "attention" in name or "softmax" in name:
        return ATTENTION
    return NORMS if "norm" in name else REST


def by_kind(step: Step, device: str) -> dict[str, float]:
    """Return seconds of one step by kind of work, on its device."""
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    step()
    with torch.no_grad(), profile(activities=activities, record_shapes=True) as recorded:
        step()
    spent: dict[str, float] = defaultdict(float)
    for event in recorded.key_averages(group_by_input_shape=True):
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        spent[kind(event.key, event.input_shapes)] += own / 1e6
    return spent


def rate(shape: Shape, rounds: int) -> float:
    """Return operations per second of a large matrix product, in the shape's precision on its device."""
    a, b = (torch.randn(WIDE, WIDE, device=shape.device).to(shape.dtype) for _ in range(2))

    def product() -> Tensor:
        return a @ b

    product()
    return 2 * WIDE**3 / statistics.median(seconds(product, shape.device) for _ in range(max(rounds, 3)))


@torch.no_grad()
def table(shape: Shape, *, rounds: int, contenders: dict[str, Callable[[Shape], Contender]]) -> str:
    """Return a column per network as Markdown, the first one the baseline, and the time at the peak rate."""
    best = rate(shape, rounds)
    spent, ideal = {}, {}
    for name, build in contenders.items():
        step = build(shape).step
        spent[name], ideal[name] = by_kind(step, shape.device), count(step) / best
    totals = {name: sum(kinds.values()) for name, kinds in spent.items()}
    floor = totals[next(iter(contenders))]

    def row(title: str, seconds: dict[str, float]) -> str:
        cells = (f"{seconds[name]:.2f} ({seconds[name] / floor:.3f})" for name in contenders)
        return f"| {title} | " + " | ".join(cells) + " |"

    reached = (f"{ideal[name]:.2f}, {ideal[name] / totals[name]:.0%} of the time" for name in contenders)
    lines = [
        f"Seconds of one step by the profiler ({shape.frames} frames of {shape.size} pixels); in brackets, relative to "
        "the whole step of the image model.",
        "",
        "| | " + " | ".join(contenders) + " |",
        "|---|" + "---|" * len(contenders),
        *(row(one, {name: spent[name][one] for name in contenders}) for one in KINDS),
        row("total", totals),
        "| its operations at the peak rate | " + " | ".join(reached) + " |",
        "",
        f"Peak rate, of a product of {WIDE} x {WIDE} matrices: {best / 1e9:.0f} billion operations per second.",
    ]
    return "\n".join(lines) + "\n"
