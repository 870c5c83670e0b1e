"""Train one stage: `python -m microcinema_core.train CONFIG [--resume | --dry-run | --measure STEPS]`."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from collections.abc import Callable

import torch

from ..messages import one_line, reason
from ..optional_deps import install_hint
from .config import load
from .loop import run
from .plan import describe, measure
from .processes import exit_process
from .stages import STAGES, Stages
from .step import DataLost, Diverged


def main(
    arguments: list[str] | None = None,
    *,
    stages: Stages = STAGES,
    command: str = "microcinema_core.train",
    explain: Callable[[Exception], str] = str,
) -> int:
    """Train one stage, or plan or measure its run.

    Args:
        arguments: the command line; None takes that of the process.
        stages: the stages that this command knows, by name.
        command: the module that was run, for the usage line.
        explain: the sentence for an error in the config or the data.

    Returns:
        The exit code: 0 when the budget is used up, 130 when the run was interrupted, 1 after an error, which stderr
        states in one sentence.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description="Train one stage.")
    parser.add_argument("config", help="TOML file, such as those in configs/")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the newest checkpoint of this run"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print parameters, memory and steps per epoch, then exit"
    )
    parser.add_argument(
        "--measure",
        type=_count,
        metavar="STEPS",
        help="run STEPS steps, print their time and memory, then exit; writes nothing",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        config = load(options.config)
        if options.dry_run:
            sys.stdout.write(describe(config, int(os.environ.get("WORLD_SIZE", "1")), stages) + "\n")
            return 0
        torch.manual_seed(config.seed)
        if options.measure is not None:
            timings = measure(config, options.measure, stages)
            sys.stdout.write(f"{timings}\n" if os.environ.get("RANK", "0") == "0" else "")
            return 0
        trainer = run(config, resume=options.resume, stages=stages)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was written after the last checkpoint\n")
        return 130
    except DataLost as error:
        sys.stderr.write(f"stopped: {one_line(error)}\n")
        return 1
    except Diverged as error:
        sys.stderr.write(f"stopped, the last checkpoint is good: {error}\n")
        return 1
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        sys.stderr.write(
            f"stopped, there is not enough memory ({reason(error)}): choose a smaller data.batch with a larger "
            "data.accumulate, or model.gradient_checkpointing = true; --resume continues from the last checkpoint\n"
        )
        return 1
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{install_hint(error, 'train')}\n")
        return 1
    except (ValueError, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = ": free some room, then continue with --resume" if full else ""
        sys.stderr.write(f"{one_line(explain(error))}{advice}\n")
        return 1
    optim = config.optim
    whole = (optim.max_steps and trainer.step >= optim.max_steps) or (
        optim.max_minutes and trainer.elapsed >= 60 * optim.max_minutes
    )
    return 0 if whole else 130


def _count(text: str) -> int:
    """Return a number of steps from the command line, at least 1."""
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{count} steps were given; at least 1 is needed")
    return count


if __name__ == "__main__":
    exit_process(main())
