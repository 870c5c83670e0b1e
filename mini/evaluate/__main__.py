"""Measure the mini models on unseen motions: `python -m mini.evaluate [SECTION ...] [--split test]`.

Every choice is made on the validation split, which is the default. The test split is for the final table.

This needs the prepared emoji (`python -m mini.world.emoji prepare`). The rows of each section are stored in
$MICROCINEMA_HOME/evaluation, and all sections are printed together as a Markdown table. Sections that are not named
are shown as they were last measured. The studies `anchor` and `motion` run only if they are named, and print tables of
their own.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from microcinema_core.data.shards import write_json

from ..world.encode import HELD_OUT
from .anchor import STUDIES
from .base import measure_base
from .evaluation_context import BASE, TSR, WEIGHTS, EvaluationContext
from .image_model import GUIDANCE, STEPS
from .pictures import measure_pictures
from .results import ResultRow, markdown
from .rigid import SUBJECTS, measure_rigid
from .subjects import measure_subjects
from .text import measure_text
from .tsr import measure_tsr
from .vae import measure_vae

SECTIONS: dict[str, Callable[[EvaluationContext], list[ResultRow]]] = {
    "vae": measure_vae,
    "subjects": measure_subjects,
    "base": measure_base,
    "text": measure_text,
    "rigid": measure_rigid,
    "pictures": measure_pictures,
    "tsr": measure_tsr,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    evaluation = _evaluation(options)
    folder = evaluation.out
    names = options.sections or list(SECTIONS)
    for name in names:
        started = time.monotonic()
        if name in STUDIES:
            tables = STUDIES[name](evaluation, options.clips, options.seeds, folder)
            seconds = time.monotonic() - started
            note = _study_note(evaluation, name, options, seconds)
            (folder / f"{name}.md").write_text(f"{tables}\n\n{note}\n", encoding="utf-8")
            continue
        rows = SECTIONS[name](evaluation)
        note = _note(evaluation, name, time.monotonic() - started)
        write_json(folder / f"{name}.json", {"note": note, "rows": [row.to_dict() for row in rows]})
    if any(name in SECTIONS for name in names):
        _print(folder, options.beside)
    for name in names:
        if name in STUDIES:
            sys.stdout.write((folder / f"{name}.md").read_text(encoding="utf-8"))
    return 0


def _evaluation(options: argparse.Namespace) -> EvaluationContext:
    return EvaluationContext(
        image_file=options.image,
        base_file=options.base,
        tsr_file=options.tsr,
        split=options.split,
        out_folder=options.out,
        clips_per_key=options.a_key,
        subjects=options.subjects,
        base_settings=replace(
            BASE, steps=options.steps, guidance_scale=options.guidance, gamma=options.gamma
        ),
        tsr_settings=replace(TSR, steps=options.tsr_steps, gamma=options.tsr_gamma),
        dtype=torch.float32 if options.float32 else torch.bfloat16,
        log=logging.info,
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mini.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        help=f"default: all of {', '.join(SECTIONS)}; studies: {', '.join(STUDIES)}",
    )
    for role in ("image", "base", "tsr"):
        shipped = WEIGHTS / f"mini_{role}.safetensors"
        parser.add_argument(f"--{role}", type=Path, default=shipped, help="default: the shipped model")
    parser.add_argument(
        "--split",
        choices=(*HELD_OUT, "held"),
        default="validation",
        help="of the emoji; `held` is what no generation has seen, look-alikes of training; default: %(default)s",
    )
    parser.add_argument(
        "--a-key", type=int, default=4, metavar="N", help="clips per motion key; default: %(default)s"
    )
    parser.add_argument(
        "--subjects",
        type=int,
        default=48,
        help="centre frames that are animated with all six motions; default: %(default)s",
    )
    parser.add_argument(
        "--steps", type=int, default=BASE.steps, help="DDIM steps of the base model; default: %(default)s"
    )
    parser.add_argument(
        "--guidance",
        type=float,
        default=BASE.guidance_scale,
        help="guidance scale of the base model; default: %(default)s",
    )
    parser.add_argument(
        "--gamma",
        type=float,
        default=BASE.gamma,
        help="share of the centre frame in the base model's starting noise; default: %(default)s",
    )
    parser.add_argument(
        "--tsr-steps", type=int, default=TSR.steps, help="DDIM steps of TSR; default: %(default)s"
    )
    parser.add_argument(
        "--tsr-gamma",
        type=float,
        default=TSR.gamma,
        help="share of the blended key frames in TSR's starting noise, 0 for none; default: %(default)s",
    )
    parser.add_argument(
        "--clips", type=int, default=48, metavar="N", help="train clips of a study; default: %(default)s"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=2,
        metavar="N",
        help="samples of each clip in a study; default: %(default)s",
    )
    parser.add_argument("--float32", action="store_true", help="sample at float32 instead of bfloat16")
    parser.add_argument(
        "--out", type=Path, help="folder of the results; default: $MICROCINEMA_HOME/evaluation"
    )
    parser.add_argument(
        "--beside", type=Path, metavar="OUT", help="also print the results in another folder, of other files"
    )
    options = parser.parse_args(arguments)
    if options.beside and not any((options.beside / f"{name}.json").is_file() for name in SECTIONS):
        parser.error(f"--beside {options.beside}: no results are there; give the --out of another run")
    return options


def _note(evaluation: EvaluationContext, section: str, seconds: float) -> str:
    minutes = f"{seconds / 60:.0f} minutes"
    if section == "vae":
        return f"vae: {evaluation.split} split; {minutes}"
    if section == "subjects":
        return f"subjects: train split, DDIM, {STEPS} steps, guidance {GUIDANCE:g}; {minutes}"
    settings = evaluation.tsr_settings if section == "tsr" else evaluation.base_settings
    clips = f"{evaluation.clips_per_key} clips per motion key"
    sampled = {"text": f"{evaluation.subjects} centre frames", "rigid": f"{SUBJECTS} stills"}.get(
        section, clips
    )
    sampler = f"DDIM, normal, {settings.steps} steps, guidance {settings.guidance_scale:g}, gamma {settings.gamma:g}"
    return f"{section}: {evaluation.split} split, {sampled}, {sampler}; {minutes}"


def _study_note(
    evaluation: EvaluationContext, study: str, options: argparse.Namespace, seconds: float
) -> str:
    settings = evaluation.base_settings
    return (
        f"{study}: {options.clips} train clips, {options.seeds} seeds each, DDIM, normal, {settings.steps} steps, "
        f"guidance {settings.guidance_scale:g}, gamma {settings.gamma:g}; {seconds / 60:.0f} minutes"
    )


def _print(folder: Path, beside: Path | None) -> None:
    rows, notes = _stored(folder)
    others = None if beside is None else _stored(beside)[0]
    sys.stdout.write(markdown(rows, others) + "\n\n")
    sys.stdout.write("\n".join(notes) + "\n")


def _stored(folder: Path) -> tuple[list[ResultRow], list[str]]:
    """Return the rows and the notes of all sections that were measured."""
    stored = [json.loads(path.read_text()) for name in SECTIONS if (path := folder / f"{name}.json").exists()]
    return [ResultRow.from_dict(row) for one in stored for row in one["rows"]], [
        one["note"] for one in stored
    ]


if __name__ == "__main__":
    sys.exit(main())
