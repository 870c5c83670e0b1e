"""Average the weights of several runs: `python -m microcinema_core.train.average FILE ... --out FILE`.

Runs that continue from one another end close together, apart from the noise of training. Their mean costs no training
steps and can be better than each of them (Wortsman et al. 2022, "Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..files.checkpoint import read_metadata
from ..files.safetensors_io import read_header, read_tensors, write_tensors
from ..messages import one_line
from .writing import refuse_unwritable, writing

AVERAGED = "microcinema.averaged"
"""Metadata entry: the number of files whose weights were averaged."""


def average(files: list[Path], target: Path) -> None:
    """Write the mean of several MicroCinema files, with the metadata of the first.

    Raises:
        ValueError: fewer than two files, a target that is one of them or a folder, an unreadable file, weights that
            are not finite, or a file that differs from the first in more than its weights: in its `ModelSpec`, its
            configurations, or its tensors' names, shapes or dtypes.
        NotWritten: the disk is full or not writable; all files are as they were.
    """
    if len(files) < 2:
        raise ValueError(f"a mean needs two files or more, {len(files)} was given")
    refuse_unwritable(target, "--out")
    if taken := [file for file in files if target.exists() and file.exists() and target.samefile(file)]:
        raise ValueError(f"--out names {one_line(taken[0])}, which is averaged too; name another file")
    kind = _kind(files[0])
    for file in files[1:]:
        _refuse_another_kind(files[0].name, kind, file.name, _kind(file))
    (first, metadata), *others = [read_tensors(file) for file in files]
    mean = {
        key: _mean(key, [tensor, *(tensors[key] for tensors, _ in others)]) for key, tensor in first.items()
    }
    with writing(
        target, "the averaged files are as they were; free some room or name another --out, and run it again"
    ):
        write_tensors(target, mean, {**metadata, AVERAGED: str(len(files))})


def _kind(file: Path) -> dict[str, object]:
    """Return what has to be equal in all files: spec, configurations, tensor names, dtypes and shapes."""
    header = read_header(file)
    tensors = {
        key: (value["dtype"], value["shape"]) for key, value in header.items() if key != "__metadata__"
    }
    spec, configs = read_metadata(file.name, header)
    return {**asdict(spec), "configs": configs, "tensors": tensors}


def _refuse_another_kind(
    first: str, kind: dict[str, object], other: str, other_kind: dict[str, object]
) -> None:
    wrong = [name for name in kind if kind[name] != other_kind[name]]
    if wrong:
        raise ValueError(
            f"{other} differs from {first} in {', '.join(wrong).replace('lambda_', 'lambda')}: "
            "a mean is taken of runs of one model, alike in all but their weights"
        )


def _mean(key: str, tensors: list[Tensor]) -> Tensor:
    """Return the mean of floating-point tensors in their own dtype; integer tensors have to be equal."""
    if not tensors[0].is_floating_point():
        if any(not tensor.equal(tensors[0]) for tensor in tensors):
            raise ValueError(f"{key} differs between the files: a mean is taken of runs of one model")
        return tensors[0]
    return torch.stack([tensor.float() for tensor in tensors]).mean(0).to(tensors[0].dtype)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m microcinema_core.train.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="MicroCinema files of one model")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write")
    options = parser.parse_args(arguments)
    try:
        average(options.files, options.out)
    except ValueError as error:
        parser.error(one_line(error))
    except OSError as error:
        sys.stderr.write(f"{one_line(error)}\n")
        return 1
    sys.stdout.write(f"{one_line(options.out)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
