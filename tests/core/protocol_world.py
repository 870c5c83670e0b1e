"""Tiny models for the paper's protocols, the command line that samples with them, and a look at its help."""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import numpy as np

from devtools.check.tiny import write_family
from tests.mini.test_data_encode import write_tokenizer


def write_models(folder: Path) -> Path:
    """Write a tiny family of models and a tokenizer of letters."""
    write_family(folder)
    write_tokenizer(folder / "tokenizer")
    return folder


def sampling(
    models: Path, out: Path, *more: str, base: str = "tiny_base", image: str = "tiny_image"
) -> list[str]:
    """Return the arguments that sample with few steps at a small size."""
    files = ["--base", f"{models / base}.safetensors", "--encoders", f"{models / image}.safetensors"]
    settings = ["--tokenizer", str(models / "tokenizer"), "--size", "64x64", "--frames", "5", "--steps", "2"]
    if "--centres" not in more:
        settings += ["--image-steps", "2", "--image-size", "64x64"]
    return ["ucf101", "sample", str(out), *files, *settings, *more]


def frames_of(path: Path) -> np.ndarray:
    """Return the frames of a video, uint8 `f h w 3`."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def options_without_default(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options with a value whose help does not say what holds without them."""
    taking = [one for one in parser._actions if one.option_strings and one.nargs != 0 and not one.required]
    return {one.option_strings[0] for one in taking if "default" not in (one.help or "")}
