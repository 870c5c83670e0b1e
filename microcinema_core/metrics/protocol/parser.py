"""The command line of `python -m microcinema_core.metrics.protocol`, as argparse reads it."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..options import add_metric_options
from .captions import INSTRUCTION
from .prompts import SPLITS, TEMPLATE

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
UCF101_COUNT = 10_000


def build_parser(description: str) -> argparse.ArgumentParser:
    """Describe the command line; each benchmark has its own options for prompts."""
    command = argparse.ArgumentParser(
        prog="python -m microcinema_core.metrics.protocol", description=description
    )
    benchmarks = command.add_subparsers(dest="benchmark", required=True)
    _add_ucf101_prompts(_add_actions(benchmarks.add_parser("ucf101", help="prompts from UCF-101's classes")))
    _add_msrvtt_prompts(_add_actions(benchmarks.add_parser("msrvtt", help="prompts from MSR-VTT's captions")))
    return command


def _add_actions(benchmark: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add all actions to a benchmark, and return that of `prompts` for the benchmark's own options."""
    actions = benchmark.add_subparsers(dest="action", required=True)
    prompts = actions.add_parser("prompts", help="write the list of prompts and seeds")
    prompts.add_argument(
        "out", metavar="OUT", type=Path, help="folder of the samples; the list is its metadata.jsonl"
    )
    prompts.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the first sample; the others count up (default: %(default)s)",
    )
    _add_sample(actions.add_parser("sample", help="make the samples of the list"))
    _add_score(actions.add_parser("score", help="score samples, of any origin, against reference clips"))
    _add_captions(actions.add_parser("captions", help="caption centre frames with a vision-language model"))
    return prompts


def _add_ucf101_prompts(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("--count", type=int, default=UCF101_COUNT, help="number of samples (default: %(default)s)")
    add("--template", default=TEMPLATE, help='text with {} for the class (default: "%(default)s")')
    add(
        "--balance",
        type=Path,
        metavar="FOLDER",
        help="folder of UCF-101's videos: classes as often as in it (default: all equally often)",
    )


def _add_msrvtt_prompts(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("--json", type=Path, metavar="FILE", required=True, help="MSR-VTT's videodatainfo.json")
    add("--count", type=int, help="number of videos, drawn uniformly by --seed (default: all of the split)")
    add(
        "--split",
        choices=SPLITS,
        default="test",
        help="part of MSR-VTT; test has 2,990 videos (default: %(default)s)",
    )
    add(
        "--caption",
        choices=("random", "first"),
        default="random",
        help="which of a video's captions (default: %(default)s)",
    )


def _add_sample(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("out", metavar="OUT", type=Path, help="folder with the list of prompts")
    add("--base", type=Path, metavar="FILE", help="MicroCinema base model; not needed with --only-centres")
    add(
        "--encoders", type=Path, required=True, metavar="FILE",
        help="text encoder, VAE and image model: Stable Diffusion file or folder, or a MicroCinema image file",
    )  # fmt: skip
    add("--tokenizer", type=Path, metavar="FOLDER", help="folder of CLIP's tokenizer (default: ComfyUI's)")
    add("--frames", type=int, default=17, help="frames before interpolation (default: %(default)s)")
    add("--size", default="320x320", metavar="WIDTHxHEIGHT", help="size of the videos (default: %(default)s)")
    add("--fps", type=float, help="frame rate that is written into the files (default: the models')")
    own = "(default: what its file recommends)"
    add("--steps", type=int, help=f"DDIM steps of the base model {own}")
    add("--cfg", type=float, help=f"guidance scale of the base model {own}")
    add("--gamma", type=float, help=f"share of the centre frame in the base model's starting noise {own}")
    add("--tsr", type=Path, metavar="FILE", help="TSR model, for --rounds")
    add(
        "--rounds",
        type=int,
        default=0,
        help="rounds of fourfold interpolation by --tsr (default: %(default)s, as in the ablations)",
    )
    add("--tsr-steps", type=int, help=f"DDIM steps of the TSR model {own}")
    add("--tsr-cfg", type=float, help=f"guidance scale of the TSR model {own}")
    add(
        "--centres",
        type=Path,
        metavar="FOLDER",
        help="centre frames 00000.png ... (default: the image model in --encoders draws them into OUT/centres)",
    )
    add(
        "--only-centres",
        action="store_true",
        help="draw the centre frames into OUT/centres, and stop before the videos, whose options are not used",
    )
    add(
        "--image-size",
        metavar="WIDTHxHEIGHT",
        help="size at which centre frames are drawn, before they are fitted to --size (default: what the image model "
        "was trained at: Stable Diffusion 512x512, with v-prediction 768x768; the mini model 128x128)",
    )
    drawn = "(default: what its file recommends; Stable Diffusion: %s)"
    add("--image-steps", type=int, help=f"DDIM steps of the image model {drawn % 20}")
    add("--image-cfg", type=float, help=f"guidance scale of the image model {drawn % 6}")
    add(
        "--captions",
        type=Path,
        metavar="FILE",
        help="file of captions, for the video model to read (default: it reads the prompts)",
    )
    add(
        "--part",
        default="1/1",
        metavar="K/N",
        help="every N-th sample from the K-th, for several processes (default: %(default)s)",
    )
    _add_device(action, "precision of the U-Nets")


def _add_score(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "real", metavar="REFERENCE", type=Path, help="reference clips: folder, table or tar shards"
    )
    action.add_argument("made", metavar="OUT", type=Path, help="the samples")
    add_metric_options(action)


def _add_captions(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("pictures", metavar="PICTURES", type=Path, help="folder of centre frames")
    add("out", metavar="OUT.jsonl", type=Path, help="file of captions, which `sample --captions` reads")
    add(
        "--model",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="LLaVA, Florence-2, BLIP ... for transformers",
    )
    add(
        "--instruction",
        help=f'what the model is asked (default: "{INSTRUCTION}" for models that chat, <CAPTION> for Florence-2)',
    )
    add("--batch", type=int, default=4, help="pictures at a time (default: %(default)s)")
    _add_device(action, "precision of the model")


def _add_device(action: argparse.ArgumentParser, precision: str) -> None:
    action.add_argument("--device", default="cpu", help="cpu, cuda ... (default: %(default)s)")
    action.add_argument("--dtype", choices=DTYPES, default="fp32", help=f"{precision} (default: %(default)s)")
