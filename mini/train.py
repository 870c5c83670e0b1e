"""Train one stage of the mini models, `python -m mini.train CONFIG.toml`, or all of them, `python -m mini.train --all`.

Options for one stage are those of `python -m microcinema_core.train`. `--all` goes on where it was interrupted; with
`--dry-run` it prints the steps and the time that each will still take.
"""

from __future__ import annotations

import argparse
import logging
import sys

from microcinema_core.data.shards import MissingSetError
from microcinema_core.train.__main__ import main as train
from microcinema_core.train.processes import exit_process
from microcinema_core.train.stages import STAGES, Stages

from . import family
from .stages import image, text, vae

MINI_STAGES: Stages = {"vae": vae.build, "text": text.build, "image": image.build, **STAGES}


def explain(error: Exception) -> str:
    """Return an error's sentence; for a missing set, with the command that makes it."""
    if isinstance(error, MissingSetError):
        return f"{error}; `python3 dev.py python -m mini.world.encode {error.folder.name}` makes the mini models' sets"
    return str(error)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    return _all(given) if "--all" in given else _one(given)


def _one(arguments: list[str]) -> int:
    """Run `microcinema_core.train` with the stages of the mini models as well."""
    return train(arguments, stages=MINI_STAGES, command="mini.train", explain=explain)


def _all(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mini.train", description="Train all stages of the mini models."
    )
    parser.add_argument("--all", action="store_true", required=True, help="train all stages in order")
    parser.add_argument("--dry-run", action="store_true", help="print the steps and the time left, then exit")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        if options.dry_run:
            sys.stdout.write(family.plan(_one) + "\n")
            return 0
        return family.run_all(_one)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{explain(error)}\n")
        return 1


if __name__ == "__main__":
    exit_process(main())
