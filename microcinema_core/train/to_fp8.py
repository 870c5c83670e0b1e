"""Store a model's weights in half the space: `python -m microcinema_core.train.to_fp8 FILE --out FILE`.

The matrices and kernels of U-Net and AppearNet are rounded to float8 (e4m3fn), each value to the nearest. Everything
else stays as it is: norms, biases, embeddings of time and text, the first and the last convolution, text encoder and
VAE. The file loads wherever the original does, and computes in the precision that the device and the host choose.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from ..files.checkpoint import PREFIXES, SINGLE_ROLES, read_metadata
from ..files.safetensors_io import read_header, read_tensors, write_tensors
from ..messages import one_line
from .writing import refuse_unwritable, writing

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
"""The largest float8; larger values would become NaN."""
ROUNDED_PARTS = ("unet", "appearnet")
EXACT = ("input_blocks.0.0.", "out.2.", "time_embed.", "fps_embed.", "empty_prompt", "concat.")
"""Layers that stay exact, by parts of their keys: what a picture enters and leaves by, and embeddings."""


def is_rounded(key: str, tensor: Tensor) -> bool:
    """Return whether a tensor of a file of the role base, image or tsr is stored in float8, by its key there."""
    own = any(key.startswith(PREFIXES[part]) for part in ROUNDED_PARTS)
    return own and is_matrix(key, tensor)


def is_matrix(key: str, tensor: Tensor) -> bool:
    """Return whether a tensor of a U-Net or AppearNet is a matrix or kernel that may be rounded."""
    weights = key.endswith(".weight") and tensor.ndim > 1 and tensor.is_floating_point()
    return weights and not any(layer in key for layer in EXACT)


def round_weights(tensors: dict[str, Tensor], role: str) -> dict[str, Tensor]:
    """Return a file's tensors with the large weights in float8.

    Raises:
        ValueError: a weight is too large for float8.
    """
    chosen = is_matrix if role in SINGLE_ROLES else is_rounded
    return {key: _rounded(key, t) if chosen(key, t) else t for key, t in tensors.items()}


def _rounded(key: str, tensor: Tensor) -> Tensor:
    largest = float(tensor.float().abs().max())
    if largest > LARGEST:
        raise ValueError(
            f"{one_line(key)} has a weight of {largest:.4g}, and float8 ends at {LARGEST:g}: keep the file in float16"
        )
    return tensor.to(FP8)


def to_fp8(file: Path, target: Path) -> float:
    """Write a MicroCinema file with the large weights in float8, and return the noise of the rounding in dB.

    Raises:
        ValueError: not a MicroCinema file, one without weights to round, or a weight that is too large.
        NotWritten: the disk is full or not writable.
    """
    refuse_unwritable(target, "--out")
    if target.exists() and file.exists() and target.samefile(file):
        raise ValueError(
            f"--out names {one_line(file)} itself; name another file, as rounding cannot be undone"
        )
    header = read_header(file)
    spec, _ = read_metadata(file.name, header)
    tensors, metadata = read_tensors(file, header=header)
    rounded = round_weights(tensors, spec.role)
    changed = [key for key in tensors if rounded[key].dtype != tensors[key].dtype]
    if not changed:
        raise ValueError(f"{one_line(file.name)} has no weights in more than 8 bits that could be rounded")
    with writing(target, "the file is as it was; free some room or name another --out, and run it again"):
        write_tensors(target, rounded, metadata)
    return _decibels(tensors, rounded, changed)


def _decibels(tensors: dict[str, Tensor], rounded: dict[str, Tensor], keys: list[str]) -> float:
    """Return the power of the weights over that of their errors, in dB."""
    power = sum(float(tensors[key].double().square().sum()) for key in keys)
    errors = sum(float((tensors[key].double() - rounded[key].double()).square().sum()) for key in keys)
    return 10 * math.log10(power / errors) if errors else math.inf


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m microcinema_core.train.to_fp8",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a MicroCinema file")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write")
    options = parser.parse_args(arguments)
    try:
        noise = to_fp8(options.file, options.out)
    except ValueError as error:
        parser.error(one_line(error))
    except OSError as error:
        sys.stderr.write(f"{one_line(error)}\n")
        return 1
    before, after = (path.stat().st_size / 1e6 for path in (options.file, options.out))
    sys.stdout.write(
        f"{one_line(options.out)}: {after:.1f} MB instead of {before:.1f} MB; the weights' errors are {noise:.1f} dB "
        "below the weights\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
