"""The paper's ablations on the mini world: `python -m mini.evaluate.paper_ablations [TABLE ...] [--plan]`.

Trains what Tables 2 to 4 and Figures 6 and 7 compare, plus the ratio of learning rates and the norms' statistics: each
variant with the same seeds, steps and data. Then it samples every run in each way, and prints tables with intervals
over seeds and motion keys and comparisons corrected for their number, and draws Fig. 6. What is trained or measured is
not repeated: an interrupted command goes on, and `--part 1/2` and `--part 2/2` may run side by side. A run whose values
are all in `--values` is not trained, so `--values mini/measured` goes on from what is measured there.

Figures are of the validation split. `--test` measures the test split too, once: with other settings it refuses.
The sets `base-ablations` and `base-ablations-validation` are encoded first, if they are not there, in 10 minutes of one
core. Start a second part when the first has begun to train.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from microcinema_core.data.shards import INDEX, write_json
from microcinema_core.files.downloads import hash_of
from microcinema_core.files.paths import home_folder
from microcinema_core.guarded import guarded
from microcinema_core.metrics.options import check_range
from microcinema_core.metrics.protocol.options import parse_part
from microcinema_core.train.config import TrainConfig

from ..family import minutes_left, progress
from ..world import encode
from . import ablation_report
from .ablation_measure import Bench
from .ablation_plan import TABLES, Cell, cells_of, variants_of
from .ablations import train, variant
from .evaluation_context import BASE, WEIGHTS, EvaluationContext

logger = logging.getLogger(__name__)
STEP_SECONDS, CLIP_SECONDS = 0.45, 0.26
"""A step, and each clip in it, on one core until the runs have shown how long they take."""
MEASURE_MINUTES = 2.0
"""Minutes of one core to sample and measure a cell of one run, for the plan."""
TRAIN_SET, HELD_OUT_SET = "base-ablations", "base-ablations-validation"
SETS = {
    TRAIN_SET: ("--rigid", "--moved", "0.25", "--count", "4096", "--seed", "23"),
    HELD_OUT_SET: ("--rigid", "--moved", "0.5", "--count", "512", "--seed", "11"),
}
"""The sets that all variants are trained and tested on, and how they are encoded."""
Run = tuple[str, int]
"""A variant and a seed."""


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mini.evaluate.paper_ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("tables", nargs="*", metavar="TABLE", help=f"default: all of {', '.join(TABLES)}")
    add("--plan", action="store_true", help="print the runs and the time left, then exit")
    add("--seeds", type=int, default=3, help="trainings of each variant; default: %(default)s")
    add(
        "--steps",
        type=int,
        default=1600,
        help="training steps; default: %(default)s, about 19 minutes of one core: see --plan",
    )
    add("--batch", type=int, default=1, help="clips per step; default: %(default)s")
    add(
        "--a-key", type=int, default=1, metavar="N", help="sampled clips per motion key; default: %(default)s"
    )
    add(
        "--subjects",
        type=int,
        default=6,
        help="centre frames with six prompted motions; default: %(default)s",
    )
    add(
        "--sampling-steps",
        type=int,
        default=BASE.steps,
        help="DDIM steps of the samples; default: %(default)s",
    )
    add(
        "--image", type=Path, default=WEIGHTS / "mini_image.safetensors",
        help="text encoder, VAE and image model; default: the shipped file",
    )  # fmt: skip
    add("--start", type=Path, help="image model that the video models are inflated from; default: --image")
    add(
        "--part",
        default="1/1",
        metavar="K/N",
        help="every N-th run from the K-th; tables come when all are done",
    )
    add("--test", action="store_true", help="measure the test split too; it is measured once")
    add(
        "--values", type=Path, help="folder of what was measured; default: $MICROCINEMA_HOME/ablations/values"
    )
    add("--out", type=Path, help="folder of the tables; default: $MICROCINEMA_HOME/ablations")
    return parser


def check(options: argparse.Namespace) -> None:
    """Check the options, and complete them.

    Raises:
        ValueError: one is out of range, or a file is missing.
    """
    options.tables = options.tables or list(TABLES)
    if unknown := [name for name in options.tables if name not in TABLES]:
        raise ValueError(f"there is no table {unknown[0]!r}; expected one of {', '.join(TABLES)}")
    for name, least in (
        ("seeds", 1),
        ("steps", 1),
        ("batch", 1),
        ("a_key", 1),
        ("subjects", 2),
        ("sampling_steps", 1),
    ):
        check_range(f"--{name.replace('_', '-')}", getattr(options, name), least)
    options.start = options.start or options.image
    for name in ("image", "start"):
        if not getattr(options, name).is_file():
            raise ValueError(f"--{name} {getattr(options, name)}: there is no such file")
    options.part = parse_part(options.part)
    options.values = options.values or home_folder() / "ablations" / "values"
    options.out = options.out or home_folder() / "ablations"
    options.origin = f"{hash_of(options.image)[:8]}-{hash_of(options.start)[:8]}"


def config_of(run: Run, options: argparse.Namespace) -> TrainConfig:
    """Return the training config of a run; its name says from which files it starts."""
    config = variant(*run, options)
    name = f"{config.name.removesuffix(f'-{run[1]}')}-{options.origin}-{run[1]}"
    data = replace(config.data, folder=TRAIN_SET, test_folder=HELD_OUT_SET)
    return replace(config, name=name, init_from=str(options.start.resolve()), data=data)


def runs_of(options: argparse.Namespace) -> list[Run]:
    """Return all runs, the first seed of every variant before the second of any."""
    return [(name, seed) for seed in range(1, options.seeds + 1) for name in variants_of(options.tables)]


def bench_of(options: argparse.Namespace, split: str) -> Bench:
    """Return the clips of a split, and where the values of these settings are stored."""
    counts = (options.a_key, options.subjects, options.sampling_steps)
    folder = options.values / "-".join([split, *map(str, counts)])
    context = EvaluationContext(
        options.image, options.image, options.image, split=split, clips_per_key=options.a_key,
        subjects=options.subjects, base_settings=replace(BASE, steps=options.sampling_steps), log=logger.info,
    )  # fmt: skip
    return Bench(context, folder)


def splits_of(options: argparse.Namespace) -> list[str]:
    """Return the splits that are measured."""
    return ["validation", "test"] if options.test else ["validation"]


def plan(options: argparse.Namespace) -> str:
    """Return the runs with the time that each still takes, one per line."""
    benches, lines, total = [bench_of(options, split) for split in splits_of(options)], [], 0.0
    pace = _step_minutes(options)
    for run in runs_of(options):
        config = config_of(run, options)
        pending = _pending(run, benches, options)
        left = (options.steps - progress(config)[0]) * pace if pending and minutes_left(config) else 0.0
        total += left + len(pending) * MEASURE_MINUTES
        lines.append(
            f"{run[0]:<34}seed {run[1]}  train {left:6.1f} min  measure {len(pending) * MEASURE_MINUTES:5.1f} min"
        )
    lines.append(f"{len(lines)} runs of {options.steps} steps: {total / 60:.1f} hours of one core are left")
    return "\n".join(lines)


def _step_minutes(options: argparse.Namespace) -> float:
    """Return the minutes of a step, by the runs that have begun."""
    done = [progress(config_of(run, options)) for run in runs_of(options)]
    steps, minutes = (sum(column) for column in zip(*done, strict=True))
    return minutes / steps if steps else (STEP_SECONDS + CLIP_SECONDS * options.batch) / 60


def _pending(run: Run, benches: Sequence[Bench], options: argparse.Namespace) -> list[tuple[Bench, Cell]]:
    """Return what is still to be measured of a run."""
    name = config_of(run, options).name
    cells = [cell for cell in cells_of(options.tables) if cell.variant == run[0]]
    return [(bench, cell) for bench in benches for cell in cells if not bench.path(name, cell).exists()]


def encode_sets(vae: Path) -> None:
    """Encode the sets that are not there yet."""
    for name, drawn_as in SETS.items():
        if not (home_folder() / "data" / name / INDEX).exists():
            encode.main([name, "--vae", str(vae), *drawn_as])


def make(options: argparse.Namespace, splits: Sequence[str]) -> None:
    """Train and measure the runs of this part that are not measured yet."""
    benches = [bench_of(options, split) for split in splits]
    for bench in benches:
        bench.real()
    number, parts = options.part
    mine = runs_of(options)[number - 1 :: parts]
    runs = [run for run in mine if _pending(run, benches, options)]
    if runs:
        encode_sets(options.image)
    for place, run in enumerate(runs, start=1):
        config = config_of(run, options)
        logger.info("run %d of %d: %s, seed %d", place, len(runs), *run)
        train(config)
        for bench, cell in _pending(run, benches, options):
            bench.values(config.name, config.export_path, cell, run[1])


def complete(options: argparse.Namespace, split: str) -> bool:
    """Return whether every run was measured on a split."""
    bench = bench_of(options, split)
    return not any(_pending(run, [bench], options) for run in runs_of(options))


def tables(options: argparse.Namespace, split: str) -> str:
    """Write the tables, their numbers and Fig. 6 for a split, and return the tables."""
    bench = bench_of(options, split)
    runs = {
        cell: [
            bench.values(config.name, config.export_path, cell, seed)
            for seed in range(1, options.seeds + 1)
            for config in [config_of((cell.variant, seed), options)]
        ]
        for cell in cells_of(options.tables)
    }
    keys, prompted = bench.keys("clips"), bench.keys("prompted")
    found = ablation_report.Statistics(ablation_report.Measured(runs, bench.real(), keys, prompted))
    note = (
        f"{split} split, {len(keys)} clips of {len(set(keys))} motion keys and {len(prompted)} prompted motions; "
        f"seeds 1 to {options.seeds}, {options.steps} steps of {options.batch} clips each, sampled with "
        f"{options.sampling_steps} steps of DDIM at guidance {BASE.guidance_scale:g}."
    )
    text = "\n\n".join([note, *(ablation_report.report(name, found) for name in options.tables)])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{split}.md").write_text(text + "\n", encoding="utf-8")
    numbers = ablation_report.figures(options.tables, found)
    write_json(options.out / f"{split}.json", {"settings": settings(options), "tables": numbers})
    if "fig6" in options.tables:
        ablation_report.plot_fig6(found, options.out / f"{split}_fig6.png")
    return text


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return all that the figures depend on."""
    names = ("tables", "seeds", "steps", "batch", "a_key", "subjects", "sampling_steps", "origin")
    return {name: getattr(options, name) for name in names}


def allow_test(options: argparse.Namespace) -> None:
    """Note that the test split is measured with these settings, before it is: nothing can be chosen by its figures.

    Raises:
        ValueError: the test split was measured with other settings.
    """
    note, now = options.values / "test_split.json", settings(options)
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, now)
    before = json.loads(note.read_text(encoding="utf-8"))
    if before != now:
        other = ", ".join(f"{name} was {before.get(name)}" for name in now if before.get(name) != now[name])
        raise ValueError(
            f"the test split was measured already, with other settings ({other}); it is measured once"
        )


def run(options: argparse.Namespace) -> int:
    """Run the command; errors as for `check`, `allow_test` and training."""
    check(options)
    if options.plan:
        sys.stdout.write(plan(options) + "\n")
        return 0
    if options.test:
        allow_test(options)
    splits = splits_of(options)
    make(options, splits)
    for split in splits:
        if complete(options, split):
            sys.stdout.write(tables(options, split) + "\n\n")
        else:
            sys.stdout.write(f"The tables of the {split} split come when the other parts are done.\n")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; exit codes as for `guarded`."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    return guarded(lambda: run(options), extra="train")


if __name__ == "__main__":
    sys.exit(main())
