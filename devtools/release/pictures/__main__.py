"""Make every picture of the docs from the shipped weights.

`python3 dev.py python -m devtools.release.pictures [NAME ...]` needs the
prepared emoji (`python3 dev.py python -m mini.world.emoji prepare`).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ...run.home import Problem, say
from .studio import Studio
from .table import PICTURES, named, produce


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.release.pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(picture.name for picture in PICTURES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {known}")
    parser.add_argument("--steps", type=int, metavar="N", help="sampling steps, for a draft")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write to this folder, for a draft")
    options = parser.parse_args()
    try:
        with Studio(options.steps) as studio:
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
            for picture in named(options.names):
                say(f"{picture.name} ...")
                start = time.monotonic()
                produce(picture, studio, options.out)
                say(f"  {time.monotonic() - start:.0f} s")
    except (Problem, OSError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
