"""The command line of `python -m microcinema_core.metrics.protocol`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ...data.options import check_device
from ...data.videos.plan import parse_sizes
from ...files.paths import home_folder, tokenizer_folder
from ...messages import one_line
from ..options import MetricOptions, add_metric_options
from ..options import parse_options as parse_metric_options
from .captions import CaptionOptions
from .prompts import SPLITS, TEMPLATE, Prompt, count_classes, msrvtt_prompts, ucf101_prompts
from .sample import SampleOptions, Settings

BENCHMARKS = ("ucf101", "msrvtt")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
UCF101_COUNT = 10_000


def build_parser(description: str) -> argparse.ArgumentParser:
    """Describe the command line."""
    command = argparse.ArgumentParser(
        prog="python -m microcinema_core.metrics.protocol", description=description
    )
    command.add_argument("benchmark", choices=BENCHMARKS)
    actions = command.add_subparsers(dest="action", required=True)
    _add_prompts(actions.add_parser("prompts", help="write the list of prompts and seeds"))
    _add_sample(actions.add_parser("sample", help="make the samples of the list"))
    _add_score(actions.add_parser("score", help="score samples, of any origin, against reference clips"))
    _add_captions(actions.add_parser("captions", help="caption centre frames with a vision-language model"))
    return command


def _add_prompts(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("out", metavar="OUT", type=Path, help="folder of the samples; the list is its metadata.jsonl")
    add("--count", type=int, help="number of samples (UCF-101: 10000, MSR-VTT: all of the split)")
    add("--seed", type=int, default=0, help="seed of the first sample; the others count up")
    add("--template", default=TEMPLATE, help="UCF-101: text with {} for the class")
    add(
        "--balance",
        type=Path,
        metavar="FOLDER",
        help="UCF-101: classes as often as in this folder; default: equally",
    )
    add("--json", type=Path, metavar="FILE", help="MSR-VTT: videodatainfo.json")
    add("--split", choices=SPLITS, default="test", help="MSR-VTT: test has 2,990 videos")
    add(
        "--caption",
        choices=("random", "first"),
        default="random",
        help="MSR-VTT: which of a video's captions",
    )


def _add_sample(action: argparse.ArgumentParser) -> None:
    add = action.add_argument
    add("out", metavar="OUT", type=Path, help="folder with the list of prompts")
    add("--base", type=Path, metavar="FILE", help="MicroCinema base model")
    add(
        "--encoders", type=Path, required=True, metavar="FILE",
        help="text encoder and VAE: Stable Diffusion file or folder, or a MicroCinema image file",
    )  # fmt: skip
    add("--tsr", type=Path, metavar="FILE", help="TSR model, for --rounds")
    add(
        "--rounds",
        type=int,
        default=0,
        help="rounds of fourfold interpolation (default: none, as in the ablations)",
    )
    add(
        "--centres",
        type=Path,
        metavar="FOLDER",
        help="centre frames 00000.png ...; default: drawn by --encoders",
    )
    add("--only-centres", action="store_true", help="draw the centre frames into OUT/centres, and stop")
    add(
        "--captions",
        type=Path,
        metavar="FILE",
        help="captions that the video model reads instead of the prompts",
    )
    add("--frames", type=int, default=17, help="frames before interpolation")
    add("--size", default="320x320", help="WIDTHxHEIGHT")
    add(
        "--steps",
        type=int,
        help="DDIM steps of the base model (default of all these settings: the file's own)",
    )
    add("--cfg", type=float, help="its guidance scale")
    add("--gamma", type=float, help="share of the centre frame in its starting noise")
    add("--image-steps", type=int, help="DDIM steps of the image model")
    add("--image-cfg", type=float, help="its guidance scale")
    add("--tsr-steps", type=int, help="DDIM steps of the TSR model")
    add("--tsr-cfg", type=float, help="its guidance scale")
    add("--fps", type=float, help="rate that is written into the files (default: the models')")
    add("--part", default="1/1", metavar="K/N", help="every N-th sample from the K-th, for several processes")
    add("--tokenizer", type=Path, help="folder of CLIP's vocab.json; default: ComfyUI's")
    add("--device", default="cpu", help="cpu, cuda ...")
    add("--dtype", choices=DTYPES, default="fp32", help="precision of the U-Nets")


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
    add("--instruction", help='what the model is asked, such as "<CAPTION>" for Florence-2')
    add("--batch", type=int, default=4, help="pictures at a time")
    add("--device", default="cpu", help="cpu, cuda ...")
    add("--dtype", choices=DTYPES, default="fp32", help="precision of the model")


def prompts_of(given: argparse.Namespace) -> list[Prompt]:
    """Return the prompt list that was asked for.

    Raises:
        ValueError: an option has an impossible value, or a file is missing.
    """
    if given.count is not None and given.count < 1:
        raise ValueError(f"--count is {given.count}; at least 1 is needed")
    if given.benchmark == "ucf101":
        videos = count_classes(given.balance) if given.balance is not None else None
        return ucf101_prompts(
            given.count or UCF101_COUNT, template=given.template, videos=videos, seed=given.seed
        )
    if given.json is None or not given.json.is_file():
        raise ValueError("MSR-VTT's prompts are its captions: name its videodatainfo.json with --json")
    return msrvtt_prompts(
        given.json, split=given.split, caption=given.caption, count=given.count, seed=given.seed
    )


def parse_sample(given: argparse.Namespace) -> SampleOptions:
    """Check the options of the action `sample`.

    Raises:
        ValueError: an option has an impossible value, or a file is missing.
    """
    files = {"base": given.base, "encoders": given.encoders, "tsr": given.tsr, "captions": given.captions}
    for name, path in files.items():
        if path is not None and not path.exists():
            raise ValueError(f"--{name} {one_line(path)}: there is no such file")
    if given.base is None and not given.only_centres:
        raise ValueError("name the base model with --base, or draw centre frames alone with --only-centres")
    if given.only_centres and given.centres is not None:
        raise ValueError("--only-centres draws the centre frames that --centres names; give one of the two")
    if given.rounds and given.tsr is None:
        raise ValueError(f"--rounds is {given.rounds}, and interpolation needs a model: --tsr FILE")
    for name, least in (("frames", 2), ("rounds", 0), ("steps", 1), ("image_steps", 1), ("tsr_steps", 1)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; at least {least} is needed")
    check_device(given.device, here=True)
    sizes = parse_sizes(given.size)
    if len(sizes) != 1 or any(side < 8 or side % 8 for side in sizes[0]):
        raise ValueError(f"--size is {given.size}; expected one size with sides that are multiples of 8")
    return SampleOptions(
        out=given.out,
        base=None if given.only_centres else given.base,
        encoders=given.encoders,
        tokenizer=given.tokenizer or tokenizer_folder(home_folder()),
        tsr=given.tsr,
        rounds=given.rounds,
        centres=given.centres,
        captions=given.captions,
        frames=given.frames,
        size=sizes[0],
        base_settings=Settings(given.steps, given.cfg, given.gamma),
        image_settings=Settings(given.image_steps, given.image_cfg),
        tsr_settings=Settings(given.tsr_steps, given.tsr_cfg),
        fps=given.fps,
        part=parse_part(given.part),
        device=given.device,
        dtype=DTYPES[given.dtype],
    )


def parse_part(text: str) -> tuple[int, int]:
    """Return K and N of "K/N".

    Raises:
        ValueError: it is none, or K is not one of 1 to N.
    """
    number, _, parts = text.partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise ValueError(f"--part is {text!r}; expected K/N, such as 1/4 ... 4/4 for four processes")
    return int(number), int(parts)


def parse_score(given: argparse.Namespace) -> MetricOptions:
    """Check the options of the action `score`; errors as for the metrics' own options.

    Without a metric, those of the paper's Table 1 and KVD are measured; CLIPSIM only with a `--clip-model`.
    """
    asked: list[Any] = [
        given.fvd,
        given.kvd,
        given.motion,
        given.inception is not None,
        given.clipsim is not None,
    ]
    if not any(asked):
        given.fvd = given.kvd = True
        if given.benchmark == "ucf101":
            given.inception = ""
        elif given.clip_model is not None:
            given.clipsim = ""
    return parse_metric_options(given)


def parse_captions(given: argparse.Namespace) -> CaptionOptions:
    """Check the options of the action `captions`.

    Raises:
        ValueError: an option has an impossible value, or a folder is missing.
    """
    for name, path in (("PICTURES", given.pictures), ("--model", given.model)):
        if not path.is_dir():
            raise ValueError(f"{name} {one_line(path)}: there is no such folder")
    if given.batch < 1:
        raise ValueError(f"--batch is {given.batch}; at least 1 is needed")
    check_device(given.device, here=True)
    return CaptionOptions(
        given.pictures,
        given.out,
        given.model,
        given.instruction,
        given.batch,
        given.device,
        DTYPES[given.dtype],
    )
