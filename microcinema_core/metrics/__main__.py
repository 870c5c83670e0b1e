"""Measure made videos: `python -m microcinema_core.metrics REAL MADE [--fvd] [--kvd] [--is] [--clipsim] [--motion]`.

Compare made videos with real ones: FVD, KVD, Inception Score, CLIPSIM, motion, colour drift and flicker, of any model's
videos. Measured values are kept: repeat the command to continue. docs/evaluation.md explains it.
"""

from __future__ import annotations

import sys
from typing import Any

from ..data.shards import write_json
from ..guarded import guarded
from ..messages import counted, one_line
from .evaluate import evaluate
from .figures import Figure, table
from .options import MetricOptions, build_parser, parse_options


def run(options: MetricOptions) -> dict[str, Any]:
    """Evaluate, print the table and the notes, and write the JSON; errors as for `evaluate`."""
    report = evaluate(options)
    sys.stdout.write(table([Figure(**figure) for figure in report["figures"]]) + "\n")
    skipped = {
        name: [entry for entry in entries if entry["skipped"]] for name, entries in report["left_out"].items()
    }
    left_out = [_left_out(name, entries) for name, entries in skipped.items() if entries]
    lines = [*report["not_computed"], *report["notes"], *left_out]
    sys.stdout.write("".join(f"\n{line}" for line in lines) + "\n")
    if options.json is not None:
        write_json(options.json, report)
    return report


def _left_out(name: str, entries: list[dict[str, Any]]) -> str:
    """Return how many files of a set were left out, with the first and its reason; the JSON lists all."""
    count = len({entry["file"] for entry in entries})
    which = "was left out," if count == 1 else "were left out, the first"
    return (
        f"{counted(count, 'file')} of {name} {which} {one_line(entries[0]['file'])}: {entries[0]['reason']}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit codes as for `guarded`, and 1 if a metric could not be computed."""
    given = build_parser((__doc__ or "").split("\n\n")[1]).parse_args(arguments)

    def command() -> int:
        return 1 if run(parse_options(given))["not_computed"] else 0

    return guarded(command, extra="metrics")


if __name__ == "__main__":
    sys.exit(main())
