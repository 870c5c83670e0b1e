"""Measure made videos: `python -m microcinema_core.metrics REAL MADE [--fvd] [--kvd] [--is] [--clipsim] [--motion]`.

Compare made videos with real ones: FVD, KVD, Inception Score, CLIPSIM, motion, colour drift and flicker, of any model's
videos. Measured values are kept: repeat the command to continue. docs/evaluation.md explains it.
"""

from __future__ import annotations

import sys
from typing import Any

from ..data.shards import write_json
from ..guarded import guarded
from .evaluate import evaluate
from .figures import Figure, table
from .options import MetricOptions, build_parser, parse_options


def run(options: MetricOptions) -> dict[str, Any]:
    """Evaluate, print the table and the notes, and write the JSON; errors as for `evaluate`."""
    report = evaluate(options)
    sys.stdout.write(table([Figure(**figure) for figure in report["figures"]]) + "\n")
    left_out = {name: len(entries) for name, entries in report["left_out"].items() if entries}
    lines = [
        *report["notes"],
        *(f"{count} files of {name} were left out" for name, count in left_out.items()),
    ]
    sys.stdout.write("".join(f"\n{line}" for line in lines) + "\n")
    if options.json is not None:
        write_json(options.json, report)
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit codes as for `guarded`."""
    given = build_parser((__doc__ or "").split("\n\n")[1]).parse_args(arguments)

    def command() -> int:
        run(parse_options(given))
        return 0

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
