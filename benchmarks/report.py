"""The tables of benchmarks/RESULTS.md, the plot beside docs/performance.md, and the page's sections."""

from __future__ import annotations

import datetime
import platform
import statistics
from pathlib import Path

import torch

from devtools.release.files import write_section
from devtools.run.home import ROOT
from microcinema_core.files.atomic import atomic_write

from .contenders import BARE, FIRST, FLOOR, OURS, PEERS, TSR_CACHED, TSR_FIRST, Shape, versions
from .timing import Timed

PAGE = ROOT / "benchmarks" / "RESULTS.md"
PLOTS = ROOT / "docs"
GIB = 2**30
TARGETS = {OURS: 1.25, FIRST: 1.25, BARE: 1.15, TSR_CACHED: 1.5, TSR_FIRST: 1.5}
"""Targets in half precision: time of a step relative to the image model on as many pictures."""
IN_FULL = {OURS: 1.45, FIRST: 1.45}
"""Targets in float32."""
MEMORY = 1.15
"""Target: working memory of a step relative to the image model."""
OF_PEERS = 0.69
"""Target: time of a step relative to the fastest peer."""


def plot_of(shape: Shape) -> Path:
    """Return the path of the plot for the shape's precision."""
    return PLOTS / f"performance_{_dtype(shape)}.png"


def machine(host: str) -> str:
    """Describe date, machine and versions in one line."""
    where = f"{torch.get_num_threads()} threads of {_processor()}"
    if torch.cuda.is_available():
        where = torch.cuda.get_device_name()
    found = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{datetime.date.today().isoformat()}, {where}, ComfyUI {host}, {found}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def steps_table(timed: list[Timed], missing: dict[str, str], shape: Shape) -> str:
    """Format one row per contender as Markdown, with the plot and the comparison with the fastest peer."""
    floor = statistics.median([second for one in timed for second in one.floor])
    lines = [
        f"One step (prompt and empty prompt) of {shape.frames} frames of {shape.size} pixels in {_dtype(shape)}; TSR "
        f"has 5 frames, and is compared with the image model on 5. The image model takes {floor:.2f} s.",
        "",
        "| network | time relative to the image model [range] | rounds | working memory | relative | target |",
        "|---|---|---|---|---|---|",
    ]
    for one in timed:
        share = one.working / max(one.floor_working, 1)
        lines.append(
            f"| {one.name} | {one.show()} | {len(one.ratios)} | {one.working / GIB:.2f} GiB | {share:.2f} | "
            f"{_target(one, shape)} |"
        )
    lines += [f"| {name} | not measured: {why} | | | | |" for name, why in missing.items()]
    picture = [f"![The same as a bar chart](../docs/{plot_of(shape).name})", ""] if len(timed) > 1 else []
    return "\n".join([*lines, "", *picture, *_beside_peers(timed)]) + "\n"


def scaling_row(one: Timed, shape: Shape) -> str:
    """Format the row of one shape."""
    a_frame = statistics.median(one.seconds) / shape.frames
    memory = one.working / GIB / shape.frames
    return f"| {shape.frames} | {shape.size} | {a_frame:.2f} | {one.show()} | {memory:.3f} GiB |"


def _beside_peers(timed: list[Timed]) -> list[str]:
    found = {one.name: one.ratios for one in timed}
    peers = [name for name in found if name in PEERS]
    if not peers or not {OURS, FIRST} <= set(found):
        return []
    peer = min(peers, key=lambda name: statistics.median(found[name]))
    return [
        f"Relative to the fastest peer ({peer}), a step takes {_over(found[OURS], found[peer])} of the time, the "
        f"first step {_over(found[FIRST], found[peer])}. Target: at most {OF_PEERS}."
    ]


def _over(ours: list[float], theirs: list[float]) -> str:
    """Format the ratio of medians, and its range over all pairs of rounds: the two did not alternate."""
    middle = statistics.median(ours) / statistics.median(theirs)
    return f"{middle:.2f} [{min(ours) / max(theirs):.2f}, {max(ours) / min(theirs):.2f}]"


def _target(one: Timed, shape: Shape) -> str:
    limit = (IN_FULL if shape.dtype == torch.float32 else TARGETS).get(one.name)
    said = [] if limit is None else [f"time <= {limit}: {_verdict(statistics.median(one.ratios), limit)}"]
    if one.name in TARGETS:
        said.append(f"memory <= {MEMORY}: {_verdict(one.working / max(one.floor_working, 1), MEMORY)}")
    return "; ".join(said)


def _verdict(value: float, limit: float) -> str:
    return "reached" if round(value, 2) <= limit else "**missed**"


def _dtype(shape: Shape) -> str:
    return str(shape.dtype).removeprefix("torch.")


def plot(timed: list[Timed], shape: Shape) -> None:
    """Draw the ratios as bars with their ranges."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.5 * len(timed) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    for row, one in enumerate(reversed(timed)):
        middle = statistics.median(one.ratios)
        ours = one.name.startswith(OURS)
        axes.barh(row, middle, color="#2a6fdb" if ours else "#9aa4b2")
        axes.plot([min(one.ratios), max(one.ratios)], [row, row], color="#222222", linewidth=1.5)
        axes.text(max(one.ratios) + 0.03, row, f"{middle:.2f}", va="center")
    axes.set_yticks(range(len(timed)), [one.name for one in reversed(timed)])
    axes.axvline(1.0, color="#222222", linestyle=":")
    axes.set_xlim(
        0, 1.12 * max(max(one.ratios) for one in timed)
    )  # room for the numbers at the ends of the bars
    figure.supxlabel(
        f"time of a step relative to {FLOOR} on as many frames ({_dtype(shape)})", fontsize="medium"
    )
    with atomic_write(plot_of(shape)) as part:
        figure.savefig(part, format="png", dpi=110)


def write(name: str, title: str, text: str, *, command: str, host: str) -> None:
    """Write a section of the page, with the command and the machine that made it."""
    write_section(PAGE, name, f"## {title}\n\nBy `{command}`: {machine(host)}.\n\n{text}")
