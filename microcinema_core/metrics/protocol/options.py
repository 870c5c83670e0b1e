"""Checks of the command line's options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...data.options import check_device
from ...data.tokens import choose_tokenizer
from ...messages import one_line
from ...model_spec import ModelSpec, SamplerDefaults
from ..options import MetricOptions, check_range, expect_file, refuse_idle
from ..options import parse_options as parse_metric_options
from .captions import CaptionOptions
from .parser import DTYPES
from .prompts import Prompt, count_classes, msrvtt_prompts, ucf101_prompts
from .sample import SampleOptions, Settings


def prompts_of(given: argparse.Namespace) -> list[Prompt]:
    """Return the prompt list that was asked for.

    Raises:
        ValueError: an option has an impossible value, or a file is missing.
    """
    if given.out.exists():
        _expect_folder("OUT", given.out)
    check_range("--count", given.count, 1)
    if given.benchmark == "ucf101":
        if given.balance is not None:
            _expect_folder("--balance", given.balance)
        videos = None if given.balance is None else count_classes(given.balance)
        return ucf101_prompts(given.count, template=given.template, videos=videos, seed=given.seed)
    expect_file("--json", given.json)
    return msrvtt_prompts(
        given.json, split=given.split, caption=given.caption, count=given.count, seed=given.seed
    )


def parse_sample(given: argparse.Namespace) -> SampleOptions:
    """Check the options of the action `sample`.

    Options of the videos are taken with `--only-centres` too, so that one command line draws the centre frames first
    and then, without it, makes the videos.

    Raises:
        ValueError: an option has an impossible value or would do nothing, or a file is missing.
    """
    _check_paths(given)
    _check_stages(given)
    _check_numbers(given)
    check_device(given.device, here=True)
    return SampleOptions(
        out=given.out,
        base=None if given.only_centres else given.base,
        encoders=given.encoders,
        tokenizer=choose_tokenizer(given.tokenizer),
        tsr=given.tsr,
        rounds=given.rounds,
        centres=given.centres,
        captions=given.captions,
        frames=given.frames,
        size=parse_size("--size", given.size),
        image_size=None if given.image_size is None else parse_size("--image-size", given.image_size),
        base_settings=Settings(given.steps, given.cfg, given.gamma),
        image_settings=Settings(given.image_steps, given.image_cfg),
        tsr_settings=Settings(given.tsr_steps, given.tsr_cfg),
        fps=given.fps,
        part=parse_part(given.part),
        device=given.device,
        dtype=DTYPES[given.dtype],
    )


def _check_paths(given: argparse.Namespace) -> None:
    for name in ("base", "tsr", "captions"):
        if (path := getattr(given, name)) is not None:
            expect_file(f"--{name}", path)
    if not given.encoders.exists():
        raise ValueError(f"--encoders {one_line(given.encoders)}: there is no such file or folder")
    if given.centres is not None:
        _expect_folder("--centres", given.centres)


def _check_stages(given: argparse.Namespace) -> None:
    if given.base is None and not given.only_centres:
        raise ValueError("name the base model with --base, or draw centre frames alone with --only-centres")
    if given.only_centres and given.centres is not None:
        raise ValueError(
            "--only-centres draws new centre frames, and --centres names existing ones; give one of the two"
        )
    if given.rounds and given.tsr is None:
        raise ValueError(f"--rounds is {given.rounds}, and interpolation needs a model: --tsr FILE")
    if not given.rounds:
        refuse_idle(given, ("tsr", "tsr_steps", "tsr_cfg"), "without --rounds; add it, such as --rounds 2")
    if given.centres is not None:
        names = ("image_size", "image_steps", "image_cfg")
        refuse_idle(given, names, "with --centres, as no centre frame is drawn; leave one of the two out")


def _check_numbers(given: argparse.Namespace) -> None:
    ranges = SamplerDefaults.RANGES
    check_range("--frames", given.frames, 2, ModelSpec.RANGES["frames"][1])
    check_range("--rounds", given.rounds, 0)
    check_fps(given.fps)
    for name in ("steps", "cfg", "gamma", "image_steps", "image_cfg", "tsr_steps", "tsr_cfg"):
        check_range(f"--{name.replace('_', '-')}", getattr(given, name), *ranges[name.rpartition("_")[2]])


def check_fps(fps: float | None) -> None:
    """Refuse a frame rate that no file can have; errors as for `check_range`."""
    check_range("--fps", fps, 0.001, ModelSpec.RANGES["fps"][1])


def parse_size(name: str, text: str) -> tuple[int, int]:
    """Return width and height of "WIDTHxHEIGHT".

    Raises:
        ValueError: it has another form, or a side is no multiple of 8.
    """
    sides = [int(side) if side.isdecimal() else 0 for side in text.lower().split("x")]
    if len(sides) != 2 or any(side < 8 or side % 8 for side in sides):
        raise ValueError(
            f"{name} is {one_line(text)}; expected WIDTHxHEIGHT in multiples of 8, such as 320x320"
        )
    return sides[0], sides[1]


def parse_part(text: str) -> tuple[int, int]:
    """Return K and N of "K/N".

    Raises:
        ValueError: it is none, or K is not one of 1 to N.
    """
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
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
    _expect_folder("PICTURES", given.pictures)
    _expect_folder("--model", given.model)
    if given.out.is_dir():
        raise ValueError(
            f"OUT.jsonl {one_line(given.out)} is a folder; name the file to write, such as captions.jsonl in it"
        )
    check_range("--batch", given.batch, 1)
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


def _expect_folder(name: str, path: Path) -> None:
    if not path.is_dir():
        kind = "this is a file; name a folder" if path.exists() else "there is no such folder"
        raise ValueError(f"{name} {one_line(path)}: {kind}")
