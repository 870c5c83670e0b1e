"""python -m mini.evaluate [SECTION ...]: the table of the mini family on unseen motions.

Needs the prepared emoji (`python -m mini.world.emoji prepare`). Each section's rows are kept in
$MICROCINEMA_HOME/evaluation and printed together as a Markdown table; a section that is not asked for is shown as it
was last measured.
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
from microcinema_core.files.paths import home_folder

from .base import measure_base
from .evaluation_context import BASE, TSR, EvaluationContext
from .rows import Row, markdown
from .text import measure_text
from .tsr import measure_tsr
from .vae import measure_vae

SECTIONS: dict[str, Callable[[EvaluationContext], list[Row]]] = {
    "vae": measure_vae,
    "base": measure_base,
    "text": measure_text,
    "tsr": measure_tsr,
}
WEIGHTS = Path(__file__).parents[2] / "weights"


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    lab = EvaluationContext(
        image_file=options.image,
        base_file=options.base,
        tsr_file=options.tsr,
        a_key=options.a_key,
        subjects=options.subjects,
        base_settings=replace(
            BASE, steps=options.steps, guidance_scale=options.guidance, gamma=options.gamma
        ),
        tsr_settings=replace(TSR, steps=options.tsr_steps),
        dtype=torch.float32 if options.float32 else torch.bfloat16,
        say=logging.info,
    )
    folder = options.out or home_folder() / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.sections or SECTIONS:
        started = time.monotonic()
        rows = SECTIONS[name](lab)
        note = _note(lab, name, time.monotonic() - started)
        write_json(folder / f"{name}.json", {"note": note, "rows": [row.to_dict() for row in rows]})
    _print(folder)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mini.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    for role in ("image", "base", "tsr"):
        parser.add_argument(f"--{role}", type=Path, default=WEIGHTS / f"mini_{role}.safetensors")
    parser.add_argument("--a-key", type=int, default=4, help="clips of each motion key")
    parser.add_argument("--subjects", type=int, default=48, help="centre frames asked for all six motions")
    parser.add_argument("--steps", type=int, default=BASE.steps, help="DDIM steps of the base model")
    parser.add_argument(
        "--guidance", type=float, default=BASE.guidance_scale, help="guidance scale of the base model"
    )
    parser.add_argument(
        "--gamma",
        type=float,
        default=BASE.gamma,
        help="how much of the centre frame is in the base model's starting noise",
    )
    parser.add_argument("--tsr-steps", type=int, default=TSR.steps, help="DDIM steps of TSR")
    parser.add_argument("--float32", action="store_true", help="sample at float32 (default: bfloat16)")
    parser.add_argument("--out", type=Path, help="folder of the results")
    return parser.parse_args(arguments)


def _note(lab: EvaluationContext, section: str, seconds: float) -> str:
    minutes = f"{seconds / 60:.0f} minutes"
    if section == "vae":
        return f"vae: {minutes}"
    asked = lab.tsr_settings if section == "tsr" else lab.base_settings
    of = f"{lab.subjects} centre frames" if section == "text" else f"{lab.a_key} clips a motion key"
    sampler = f"DDIM, normal, {asked.steps} steps, guidance {asked.guidance_scale:g}, gamma {asked.gamma:g}"
    return f"{section}: {of}, {sampler}; {minutes}"


def _print(folder: Path) -> None:
    found = [json.loads(path.read_text()) for name in SECTIONS if (path := folder / f"{name}.json").exists()]
    sys.stdout.write(markdown(Row(**row) for one in found for row in one["rows"]) + "\n\n")
    sys.stdout.write("\n".join(one["note"] for one in found) + "\n")


if __name__ == "__main__":
    sys.exit(main())
