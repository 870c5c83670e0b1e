"""python -m microcinema_core.train CONFIG.toml [--resume | --dry-run | --measure STEPS]"""

from __future__ import annotations

import argparse
import logging
import os
import sys

import torch

from ..optional_deps import to_install
from .config import load
from .loop import run
from .plan import describe
from .processes import leave
from .stages import STAGES, Stages
from .step import DataLost, Diverged
from .trial import measure


def main(
    arguments: list[str] | None = None, *, stages: Stages = STAGES, command: str = "microcinema_core.train"
) -> int:
    """Train; exit code 0 done, 1 a problem that one sentence tells, 130 interrupted after saving."""
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description="Train one stage.")
    parser.add_argument("config", help="a TOML file, see configs/")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of this run")
    parser.add_argument("--dry-run", action="store_true", help="say what the run will be, and end")
    parser.add_argument(
        "--measure",
        type=int,
        metavar="STEPS",
        help="do so many steps, say what they take, and end; nothing is written",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        config = load(options.config)
        if options.dry_run:
            sys.stdout.write(describe(config, int(os.environ.get("WORLD_SIZE", "1")), stages) + "\n")
            return 0
        torch.manual_seed(config.seed)
        if options.measure:
            told = measure(config, options.measure, stages)
            sys.stdout.write(f"{told}\n" if os.environ.get("RANK", "0") == "0" else "")
            return 0
        trainer = run(config, resume=options.resume, stages=stages)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what the last checkpoint holds is there, nothing else was written\n")
        return 130
    except DataLost as error:
        sys.stderr.write(f"stopped: {error}\n")
        return 1
    except Diverged as error:
        sys.stderr.write(f"stopped, the last checkpoint is good: {error}\n")
        return 1
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{to_install(error)}\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    optim = config.optim
    whole = (optim.max_steps and trainer.step >= optim.max_steps) or (
        optim.max_minutes and trainer.elapsed >= 60 * optim.max_minutes
    )
    return 0 if whole else 130


if __name__ == "__main__":
    leave(main())
