"""Human evaluation: `python -m microcinema_core.metrics.preference make A B OUT`, then `... tally OUT ANSWERS ...`.

Make a page that shows pairs of videos side by side, without saying which is whose, and count the answers that people
saved with it: motion quality, text alignment, visual quality and overall preference, as in Figures 5 and 8 of the
paper. docs/evaluation.md explains it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...guarded import guarded
from .study import SIZE, make
from .tally import tally


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command = argparse.ArgumentParser(
        prog="python -m microcinema_core.metrics.preference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(dest="action", required=True)
    add = actions.add_parser(
        "make", help="make the page from two folders of videos with the same names"
    ).add_argument
    add("first", metavar="A", type=Path, help="folder of videos, or a caption table")
    add("second", metavar="B", type=Path, help="the other one")
    add("out", metavar="OUT", type=Path, help="folder of the study; OUT/page is what people get")
    add("--count", type=int, metavar="N", help="pairs, drawn at random; default: all")
    add(
        "--size",
        type=int,
        default=SIZE,
        help="both are cropped to squares of this size; default: %(default)s pixels",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="seed of the draw, of the order and of the sides; default: %(default)s",
    )
    add = actions.add_parser("tally", help="count saved answers").add_argument
    add("out", metavar="OUT", type=Path, help="folder of the study")
    add("answers", metavar="ANSWERS", type=Path, nargs="+", help="files that people saved, one a person")
    return command


def run(given: argparse.Namespace) -> int:
    """Run one action, print what it made, and return 0; errors as for `make` and `tally`."""
    if given.action == "make":
        count = make(
            given.first, given.second, given.out, count=given.count, size=given.size, seed=given.seed
        )
        sys.stdout.write(
            f"{count} pairs are in {given.out / 'page'}: give that folder to people, and ask for the file that its "
            f"index.html saves at the end. {given.out / 'key.json'} says which side is whose: keep it.\n"
        )
    else:
        sys.stdout.write(tally(given.out, given.answers) + "\n")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit codes as for `guarded`."""
    given = build_parser().parse_args(arguments)
    return guarded(lambda: run(given), extra="metrics")


if __name__ == "__main__":
    sys.exit(main())
