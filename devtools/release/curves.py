"""Plot the losses of training runs: `python3 dev.py python -m devtools.release.curves RUN ...`.

A RUN is a folder of $MICROCINEMA_HOME/runs. Each run has its own axes, because losses of different stages cannot be
compared. The thin lines are the loss by quarter of the noise schedule, from least noise to most.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from microcinema_core.files.atomic import atomic_write

from ..run.home import ROOT, Problem, home

COLUMNS = 3
SMOOTHED = 3
"""Width of the moving average, in logged values; each of them is already the mean of many steps."""


def read(run: str) -> list[dict[str, Any]]:
    """Return a run's statistics, one dict for each logging interval.

    Raises:
        Problem: there is no such run, or it has logged nothing yet.
    """
    file = home() / "runs" / run / "stats.jsonl"
    if not file.is_file():
        raise Problem(f"{run} is not a run: there is no {file}. The runs' folders are in {home() / 'runs'}.")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if not lines:
        raise Problem(f"{run} has no losses yet: {file} is empty. Let it train for a while first.")
    return lines


def smooth(values: list[float]) -> list[float]:
    """Return the centred moving average of `SMOOTHED` values; the window is cut off at both ends."""
    reach = SMOOTHED // 2
    windows = [values[max(i - reach, 0) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def plot(runs: list[str], target: Path) -> None:
    """Write a PNG of the losses over steps, with one plot for each run."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(runs))
    rows = math.ceil(len(runs) / columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    for place, run in enumerate(runs, start=1):
        axes, lines = figure.add_subplot(rows, columns, place), read(run)
        bands = sorted(name for name in lines[0] if name.startswith("loss/band"))
        for name in [*bands, "loss"]:
            shown = [line for line in lines if name in line]
            whole = name == "loss"
            axes.plot(
                [line["step"] for line in shown],
                smooth([line[name] for line in shown]),
                color="#2a6fdb" if whole else "#9aa4b2",
                linewidth=1.8 if whole else 0.8,
            )
        axes.set_title(
            f"{run}: {lines[-1]['step']:,} steps, {lines[-1]['seconds'] / 60:.0f} min", fontsize="medium"
        )
        axes.set_yscale("log")
    with atomic_write(target) as part:
        figure.savefig(part, format="png", dpi=100)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.release.curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a folder of $MICROCINEMA_HOME/runs")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "mini" / "loss.png",
        metavar="FILE",
        help="the PNG (default: mini/loss.png)",
    )
    options = parser.parse_args()
    try:
        plot(options.runs, options.out)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
