"""Run the benchmarks: `python3 dev.py python -m benchmarks [SECTION ...] [--write]`."""

from __future__ import annotations

import argparse
import gc
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from devtools.run.home import ROOT, say
from devtools.run.host import find_host

from . import (
    cascade,
    crafter,
    interpolation,
    layers,
    loading,
    memory,
    motion,
    operations,
    profile,
    report,
    timing,
    training,
)
from .contenders import ALL, FLOOR, OURS, TSR_FRAMES, MissingError, Shape, boot_host, shape_of
from .timing import Timed

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
ANY_DTYPE = ("operations", "loading", "interpolation", "cascade")
"""Sections that do not depend on --dtype: they count, or use files of fixed precision."""


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(MAKERS)} (default: all)")
    parser.add_argument("--dtype", default="bf16", choices=DTYPES)
    parser.add_argument("--frames", type=int, help=f"default: 9, in motion and crafter {motion.FRAMES}")
    parser.add_argument(
        "--size",
        type=int,
        help=f"side in pixels; default: 320, in motion {motion.SIZE}, in crafter {crafter.SIZE}",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="0, in motion and crafter: the warm-up is timed, nothing else"
    )
    parser.add_argument(
        "--clock",
        default="wall",
        choices=timing.CLOCKS,
        help="of motion and crafter; cpu for a machine with other load",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="for cpu on a machine with a GPU, also set CUDA_VISIBLE_DEVICES= (memory is read from a visible GPU)",
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="PATTERN",
        help="regular expression for contenders' names, as ^MicroCinema$",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write the sections to {report.PAGE.relative_to(ROOT)}"
    )
    options = parser.parse_args(argv)
    try:
        re.compile(options.only)
    except re.error as error:
        parser.error(
            f"--only is {options.only!r}, not a regular expression ({error}); a name such as MicroCinema is one"
        )
    if unknown := set(options.sections) - set(MAKERS):
        parser.error(f"unknown section {min(unknown)!r}; the sections are {', '.join(MAKERS)}")
    return options


def main(argv: list[str]) -> int:
    """Measure and print the sections; with --write, also write them to the page."""
    options = parse(argv)
    host = boot_host(find_host(os.environ.get("COMFYUI_PATH")), options.device)
    shape = Shape(options.frames or 9, options.size or 320, DTYPES[options.dtype], options.device)
    names = [name for name in ALL if re.search(options.only, name, re.IGNORECASE)]
    arguments = shlex.join(word for word in argv if word != "--write")
    command = f"python3 dev.py python -m benchmarks {arguments}".rstrip()
    for section in options.sections or MAKERS:
        title, text = MAKERS[section](shape, names, options)
        say(f"\n{text}")
        if options.write:
            name = f"benchmark {section}" + ("" if section in ANY_DTYPE else f" {options.dtype}")
            report.write(name, title, text, command=command, host=host)
    return 0


def _operations(shape: Shape, names: list[str], options: argparse.Namespace) -> tuple[str, str]:
    return "Operations of a step", operations.table(shape, names)


def _steps(shape: Shape, names: list[str], options: argparse.Namespace) -> tuple[str, str]:
    """Time every contender against the baseline for its shape; TSR's contenders have their own."""
    timed: list[Timed] = []
    missing: dict[str, str] = {}
    for own in dict.fromkeys((shape, replace(shape, frames=TSR_FRAMES))):
        floor = ALL[FLOOR](own)
        for name in names:
            if name == FLOOR or shape_of(name, shape) != own:
                continue
            try:
                timed.append(timing.take_turns(name, own, floor, rounds=options.rounds))
            except (MissingError, torch.cuda.OutOfMemoryError) as error:
                missing[name] = str(error).splitlines()[0]
                continue
            say(f"{name}: {timed[-1].show()}")
            gc.collect()
    if options.write and len(timed) > 1:
        report.plot(timed, shape)
    return f"Time of a step, {options.dtype}", report.steps_table(timed, missing, shape)


def _family(title: str, family: Any, shape: Shape, options: argparse.Namespace) -> tuple[str, str]:
    """Time a family of published weights at its own number of frames and size, unless the command names others."""
    own = replace(shape, frames=options.frames or family.FRAMES, size=options.size or family.SIZE)

    def wanted(name: str) -> bool:
        return re.search(options.only, name, re.IGNORECASE) is not None

    table = family.table(own, wanted, rounds=options.rounds, clock=options.clock)
    return f"{title}, {options.dtype}", table


def _motion(shape: Shape, _: list[str], options: argparse.Namespace) -> tuple[str, str]:
    return _family("Published motion weights", motion, shape, options)


def _crafter(shape: Shape, _: list[str], options: argparse.Namespace) -> tuple[str, str]:
    return _family("The Crafter family", crafter, shape, options)


def _scaling(shape: Shape, names: list[str], options: argparse.Namespace) -> tuple[str, str]:
    """Time our step at other numbers of frames and other sizes."""
    shapes = [replace(shape, frames=frames) for frames in (5, 9, 17, 33)]
    shapes += [replace(shape, size=size) for size in (256, 512)]
    rows = [
        "| frames | pixels | seconds per frame | relative to the image model [range] | memory per frame |"
    ]
    rows.append("|---|---|---|---|---|")
    for one in shapes:
        timed = timing.take_turns(OURS, one, ALL[FLOOR](one), rounds=options.rounds)
        rows.append(report.scaling_row(timed, one))
        say(rows[-1])
        gc.collect()
    return f"Scaling with frames and size, {options.dtype}", "\n".join(rows) + "\n"


MAKERS: dict[str, Callable[[Shape, list[str], argparse.Namespace], tuple[str, str]]] = {
    "operations": _operations,
    "steps": _steps,
    "scaling": _scaling,
    "motion": _motion,
    "crafter": _crafter,
    "profile": lambda shape, _, given: (
        f"Where the time goes, {given.dtype}",
        profile.table(shape, rounds=given.rounds, contenders=profile.CONTENDERS),
    ),
    "layers": lambda shape, _, given: (
        f"Single layers, two ways, {given.dtype}",
        layers.table(shape, rounds=given.rounds),
    ),
    "loading": lambda _, __, given: ("Loading and start-up", loading.table(rounds=given.rounds)),
    "interpolation": lambda *_: (
        "Memory of interpolation by length",
        interpolation.table(interpolation.measure()),
    ),
    "cascade": lambda _, __, given: ("The mini cascade by stage", cascade.table(rounds=given.rounds)),
    "training": lambda shape, _, given: (
        f"A training step, {given.dtype}",
        training.table(rounds=given.rounds, dtype=shape.dtype),
    ),
    "memory": lambda shape, _, given: (f"What fits on a card, {given.dtype}", memory.table(shape)),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
