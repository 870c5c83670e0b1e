"""Design choices of the base model, trained for a short equal budget: `python -m mini.evaluate.ablations [NAME ...]`.

Every variant starts from the same image model with the same seeds, and differs from `shipped` in what its name says
alone ("neither": no injection and no prior). Finished runs are not repeated, so the command may be interrupted and
restarted. Runs that began from another image file must be removed first. The command needs the encoded sets `base` and
`base-validation`, and prints a Markdown table of differences from `shipped`, paired by seed.
`python -m mini.evaluate.paper_ablations` is for the paper's tables.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import default_collate

from microcinema_core.data.shards import write_json
from microcinema_core.diffusion.noise import GAMMA
from microcinema_core.files.paths import home_folder
from microcinema_core.train.checkpoints import saved_checkpoints
from microcinema_core.train.config import TrainConfig, load
from microcinema_core.train.loop import run
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.stages import build_stage
from microcinema_core.train.video import VideoStage

from ..family import minutes_left
from .ablation_plan import GROUPS, SHIPPED, VARIANTS
from .base import OURS, REAL, distances, measure, motion_ratio
from .evaluation_context import ROOT, WEIGHTS, EvaluationContext
from .protocol import evaluation_clips

DESIGN = (
    SHIPPED,
    "no prior",
    "SPADE in out_layers alone",
    "add_encdec",
    "AppearNet sees time and text",
    "norm over the clip",
    "spatial layers ten times slower",
    "appearance attention",
)
"""The variants that are compared if none is named."""
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Student's t for the 95% interval of a mean, by number of seeds."""


def variant(name: str, seed: int, options: argparse.Namespace) -> TrainConfig:
    """Return the training config of one variant and seed."""
    config = load(ROOT / "mini" / "configs" / "mini_base_start.toml")
    image = str(options.image.resolve())
    changes = VARIANTS[name]
    budget = {"max_steps": options.steps, "max_minutes": 0.0, "warmup_steps": 20, "ema": 0.98}
    return replace(
        config,
        name=f"ablation-{name.replace(' ', '_')}-{options.steps}x{options.batch}-{seed}",
        seed=seed,
        init_from=image,
        data=replace(config.data, batch=options.batch),
        optim=replace(config.optim, **budget, **{"groups": GROUPS, **changes.get("optim", {})}),
        loss={**config.loss, **changes.get("loss", {})},
        log=replace(config.log, sheet_minutes=0.0, checkpoint_minutes=5.0, export_minutes=0.0, keep=1),
        model={
            **config.model,
            "appearance_attention": False,
            **changes.get("model", {}),
            "image_file": image,
        },
    )


def train(config: TrainConfig) -> None:
    """Train until the budget is used up; an interrupted run resumes.

    Raises:
        KeyboardInterrupt: training was interrupted; it has saved a checkpoint.
    """
    if not minutes_left(config):
        return
    run(config, resume=bool(saved_checkpoints(config.run_folder / "checkpoints")))
    if minutes_left(config):  # it writes its file then, too, which must not be taken for the finished one
        raise KeyboardInterrupt


@torch.no_grad()
def held_out_loss(config: TrainConfig, *, clips: int = 128, batch: int = 8) -> float:
    """Return the mean squared error of v on the validation split, under the same noise for every run.

    The error of v is that of z_0 divided by sqrt(1 - alpha_bar), whatever the prior adds to the noise. Runs with and
    without the prior are therefore comparable.
    """
    stage = build_stage(replace(config, init_from=str(config.export_path), precision="fp32"))
    stage.prepare()
    assert isinstance(stage, VideoStage)
    generator = torch.Generator().manual_seed(0)
    stage.objective = replace(stage.objective, text_dropout=0.0, appearance_dropout=0.0)
    losses = []
    for start in range(0, clips, batch):
        items = [stage.test[i * len(stage.test) // clips] for i in range(start, start + batch)]
        losses.append(float(stage.loss(default_collate(items), SharedRandom(generator))[0]))
    return statistics.mean(losses)


def figures(name: str, config: TrainConfig, options: argparse.Namespace) -> dict[str, float]:
    """Measure one run: held-out loss and, unless `options.a_key` is 0, metrics of its samples."""
    loss = {"held-out loss": held_out_loss(config)}
    if not options.a_key:
        return loss
    file = config.export_path
    evaluation = EvaluationContext(options.image, file, file)
    # lambda and gamma are the paper's pairs, 0.03 with 0.02 and 0 with 0; the shipped workflows use another gamma.
    gamma = 0.0 if evaluation.base.spec.lambda_ == 0 else GAMMA
    evaluation.base_settings = replace(evaluation.base_settings, gamma=gamma, seed=config.seed)
    chosen = evaluation_clips(evaluation.emoji, clips_per_key=options.a_key, split=evaluation.split)
    measured = measure(evaluation, chosen, without_appearnet=False)
    return {
        **loss,
        "kernel distance": distances(evaluation, measured).kernel[OURS].value,
        "motion over real": float(motion_ratio(measured).median()),
        "centre frame, dB in the box": float(measured.centre_psnr[OURS].mean()),
        "colours' drift over real": float(measured.drift[OURS].mean() / measured.drift[REAL].mean()),
    }


def table(results: Mapping[str, list[dict[str, float]]]) -> str:
    """Format the results as a Markdown table.

    `shipped` has its own means, every other variant its mean difference from `shipped`, both with 95% intervals over
    seeds.
    """
    shipped = results[SHIPPED]
    names = list(shipped[0])
    lines = ["| variant | seeds | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for variant, runs in results.items():
        cells = []
        for name in names:
            values = [
                r[name] - (0 if variant == SHIPPED else s[name]) for r, s in zip(runs, shipped, strict=False)
            ]
            cells.append(_mean(values, sign=variant != SHIPPED))
        lines.append(f"| {variant} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(values: list[float], *, sign: bool) -> str:
    mean = statistics.mean(values)
    text = f"{mean:+.3f}" if sign else f"{mean:.3f}"
    if len(values) < 2:
        return text
    return f"{text} ± {T_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    results: dict[str, list[dict[str, float]]] = {}
    for name in dict.fromkeys([SHIPPED, *(options.names or DESIGN)]):
        for seed in range(1, options.seeds + 1):
            results.setdefault(name, []).append(_cached_figures(name, seed, options))
    sys.stdout.write(table(results) + "\n")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mini.evaluate.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {'; '.join(VARIANTS)}")
    parser.add_argument(
        "--seeds", type=int, default=3, choices=range(1, 6), help="runs per variant; default: %(default)s"
    )
    parser.add_argument("--steps", type=int, default=240, help="training steps; default: %(default)s")
    parser.add_argument("--batch", type=int, default=8, help="clips per step; default: %(default)s")
    parser.add_argument(
        "--a-key",
        type=int,
        default=1,
        metavar="N",
        help="sampled clips per motion key; 0: only the held-out loss; default: %(default)s",
    )
    parser.add_argument(
        "--image",
        type=Path,
        default=WEIGHTS / "mini_image.safetensors",
        help="image model to start from; default: the shipped model",
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in VARIANTS]:
        parser.error(f"there is no variant {unknown[0]!r}; expected one of {', '.join(VARIANTS)}")
    return options


def _cached_figures(name: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train and measure a run, or read its stored figures."""
    config = variant(name, seed, options)
    train(config)
    path = home_folder() / "runs" / config.name / f"figures-{options.a_key}.json"
    if not path.exists():
        write_json(path, figures(name, config, options))
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
