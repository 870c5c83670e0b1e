"""The paper's protocols: `python -m microcinema_core.metrics.protocol ucf101|msrvtt prompts|sample|score|captions ...`.

Write the prompts of UCF-101 or MSR-VTT, sample them, and score the samples against reference clips, as in section 4 of
the paper. docs/evaluation.md explains it.
"""

from __future__ import annotations

import argparse
import sys

from ...guarded import guarded
from ...messages import counted
from ..__main__ import run as run_metrics
from ..figures import Figure
from .captions import write_captions
from .options import parse_captions, parse_sample, parse_score, prompts_of
from .paper import beside_the_paper
from .parser import build_parser
from .prompts import write_prompts
from .sample import sample


def run(given: argparse.Namespace) -> int:
    """Run one action and print what it made; return 0, or 1 if a metric could not be computed.

    Raises:
        ValueError: an input is not what was expected.
        OSError: a file cannot be written.
    """
    if given.action == "prompts":
        prompts = prompts_of(given)
        sys.stdout.write(f"{counted(len(prompts), 'prompt')} in {write_prompts(given.out, prompts)}\n")
    elif given.action == "sample":
        sys.stdout.write(f"{counted(sample(parse_sample(given)), 'sample')} in {given.out}\n")
    elif given.action == "captions":
        sys.stdout.write(f"{counted(write_captions(parse_captions(given)), 'caption')} in {given.out}\n")
    else:
        report = run_metrics(parse_score(given))
        figures = [Figure(**figure) for figure in report["figures"]]
        sys.stdout.write(f"\n{beside_the_paper(given.benchmark, figures)}\n")
        return 1 if report["not_computed"] else 0
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit codes as for `guarded`."""
    given = build_parser((__doc__ or "").split("\n\n")[1]).parse_args(arguments)
    return guarded(lambda: run(given), extra="metrics")


if __name__ == "__main__":
    sys.exit(main())
