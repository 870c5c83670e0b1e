"""Run the campaign: `python3 dev.py python -m devtools.check.fuzz [--minutes N] [--seed N] [--only TEXT]`."""

from __future__ import annotations

import argparse
import json
import sys
import time

from devtools.run.home import say

from .campaign import Campaign, Found, Target, attempt
from .outcome import FAULTS
from .suites import SUITES, open_suites

EXAMPLES, LEAST = 25, 50
"""Cases of a target in one round, and in all rounds at least."""


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m devtools.check.fuzz", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=0.0, metavar="N", help="go on for so long; else one round"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed makes the same cases")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only targets with this text in their name"
    )
    parser.add_argument("--suite", choices=sorted(SUITES), help="only files or only graphs")
    parser.add_argument("--again", metavar="CASE", help="run the case of a reported fault again")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the campaign; return 1 for any fault, or where too little was tried, else 0."""
    arguments = parse(argv)
    started = time.monotonic()
    with open_suites([arguments.suite] if arguments.suite else sorted(SUITES)) as targets:
        chosen = [target for target in targets if arguments.only in target.name]
        if arguments.again:
            return _again(json.loads(arguments.again), targets)
        campaign = Campaign(chosen, base_seed=arguments.seed, report=_report)
        until = started + 60 * arguments.minutes if arguments.minutes else None
        campaign.run(examples=EXAMPLES, rounds=-(-LEAST // EXAMPLES), until=until)
    print(campaign.table())
    lacking = campaign.lacking(LEAST)
    for line in lacking:
        say(line)
    say(f"{len(campaign.found)} faults in {time.monotonic() - started:.0f} s")
    return 1 if campaign.found or lacking else 0


def _report(found: Found) -> None:
    say(found.line())


def _again(case: dict[str, object], targets: list[Target]) -> int:
    target = next(one for one in targets if one.name == case["target"])
    outcome = attempt(target.worker, case)
    print(f"{outcome.verdict}: {outcome.said}")
    return 1 if outcome.verdict in FAULTS else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
