"""The sections of docs/performance.md, and its plot."""

from __future__ import annotations

import datetime
import platform
import statistics
from pathlib import Path

import torch

from devtools.release.page import write_section
from devtools.run.home import ROOT
from microcinema_core.files.atomic import atomic_write

from .contenders import BARE, FIRST, FLOOR, OURS, PEERS, TSR_CACHED, TSR_FIRST, Shape, versions
from .timing import Timed

PAGE = ROOT / "docs" / "performance.md"
GIB = 2**30
TARGETS = {OURS: 1.25, FIRST: 1.25, BARE: 1.15, TSR_CACHED: 1.5, TSR_FIRST: 1.5}
"""Times of the image model on as many pictures, at most, in half precision."""
IN_FULL = {OURS: 1.45, FIRST: 1.45}
"""The same in float32."""
MEMORY = 1.15
"""Working memory of a step over the image model's, at most."""
OF_PEERS = 0.69


def plot_of(shape: Shape) -> Path:
    """The plot of a precision's steps."""
    return PAGE.with_name(f"performance_{_dtype(shape)}.png")


def machine(host: str) -> str:
    """What a figure depends on, in one line."""
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
    """One row a contender."""
    floor = statistics.median([second for one in timed for second in one.floor])
    lines = [
        f"One step (text and empty prompt) of {shape.frames} frames of {shape.size} pixels "
        f"({_dtype(shape)}; TSR: 5 frames, and the image model on 5). The image model: {floor:.2f} s.",
        "",
        "| network | of the image model's time [range] | rounds | working memory | of the image model's | target |",
        "|---|---|---|---|---|---|",
    ]
    for one in timed:
        share = one.working / max(one.floor_working, 1)
        lines.append(
            f"| {one.name} | {one.show()} | {len(one.ratios)} | {one.working / GIB:.2f} GiB | {share:.2f} | "
            f"{_target(one, shape)} |"
        )
    lines += [f"| {name} | not measured: {why} | | | | |" for name, why in missing.items()]
    picture = [f"![The same as bars]({plot_of(shape).name})", ""] if len(timed) > 1 else []
    return "\n".join([*lines, "", *picture, *_beside_peers(timed)]) + "\n"


def scaling_row(one: Timed, shape: Shape) -> str:
    """One shape's row."""
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
        f"Of the fastest peer's time ({peer}) a step takes {_over(found[OURS], found[peer])}, the first step "
        f"{_over(found[FIRST], found[peer])}; target: at most {OF_PEERS}."
    ]


def _over(ours: list[float], theirs: list[float]) -> str:
    """The medians' ratio, and the range of all pairs of rounds: these two took no turns with each other."""
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
    """Ratios as bars with their ranges."""
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
    axes.set_xlim(0, 1.12 * max(max(one.ratios) for one in timed))  # room for the figures at the bars' ends
    figure.supxlabel(
        f"time of a step over that of {FLOOR} on as many frames ({_dtype(shape)})", fontsize="medium"
    )
    with atomic_write(plot_of(shape)) as part:
        figure.savefig(part, format="png", dpi=110)


def write(name: str, title: str, text: str, *, command: str, host: str) -> None:
    """Put a section into the page, with what made it."""
    write_section(PAGE, name, f"## {title}\n\nBy `{command}`: {machine(host)}.\n\n{text}")
