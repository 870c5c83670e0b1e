"""Train one stage of the mini models, `python -m mini.train CONFIG.toml`, or all of them, `python -m mini.train --all`.

Options for one stage are those of `python -m microcinema_core.train`. `--all` goes on where it was interrupted; with
`--dry-run` it prints the steps and the time that each will still take. With `--device` it trains image models and base
model on one card, for `--minutes`, from the world in one file (`mini.world.archive`).
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from microcinema_core.data.shards import MissingSetError
from microcinema_core.messages import reason
from microcinema_core.train.__main__ import main as train
from microcinema_core.train.config import UNLIMITED
from microcinema_core.train.processes import exit_process
from microcinema_core.train.stages import STAGES, Stages
from microcinema_core.train.step import Diverged

from . import family
from .card.family import START, CardRun, train_family
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
    card = parser.add_argument_group("on one card", "image models and base model, in a limited time")
    card.add_argument("--device", help="train there, such as cuda; needs --minutes and --data")
    card.add_argument("--minutes", type=float, metavar="N", help="time of the whole command")
    card.add_argument(
        "--data", type=Path, metavar="ARCHIVE", help="the file of `python -m mini.world.archive`"
    )
    card.add_argument(
        "--batch", type=int, default=0, help="pictures of a batch, for smaller cards and trials"
    )
    card.add_argument("--start", type=Path, default=START, help="image file with VAE and text encoder")
    card.add_argument(
        "--compile", action="store_true", help="compile the networks, which takes minutes at first"
    )
    card.add_argument("--workers", type=int, default=1, help="processes that decode the archive")
    options = parser.parse_args(arguments)
    given = [name for name in ("device", "minutes", "data") if getattr(options, name) is not None]
    if given and len(given) < 3:
        parser.error(
            f"--{' and --'.join(given)} without the others; --device, --minutes and --data belong together"
        )
    if given and not 0 < options.minutes < UNLIMITED:
        parser.error(f"--minutes is {options.minutes:g}; a number above 0 was expected")
    if options.batch < 0 or options.workers < 1:
        parser.error(
            f"--batch is {options.batch} and --workers {options.workers}; at least 0 and 1 were expected"
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        if given:
            return train_family(
                CardRun(
                    options.data, options.device, options.minutes, options.batch, options.start, options.compile,
                    options.workers,
                )
            )  # fmt: skip
        if options.dry_run:
            sys.stdout.write(family.plan(_one) + "\n")
            return 0
        return family.run_all(_one)
    except KeyboardInterrupt:
        return 130
    except Diverged as error:
        sys.stderr.write(f"stopped, the last checkpoint is good: {error}\n")
        return 1
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        sys.stderr.write(f"stopped, there is not enough memory ({reason(error)}): choose a smaller --batch\n")
        return 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{explain(error)}\n")
        return 1


if __name__ == "__main__":
    exit_process(main())
