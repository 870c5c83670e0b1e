"""python -m microcinema_core.train.average FILE FILE ... --out FILE: the mean of runs' weights.

Runs that go on from one another end near one another, apart by the noise of training; their mean costs no step, and
can be better than each (Wortsman et al. 2022, "Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from ..files.metadata import read_fields
from ..files.safetensors_io import read_header, read_tensors, write_tensors

AVERAGED = "microcinema.averaged"
"""The metadata's entry that says of how many files the weights are the mean."""


def average(files: list[Path], target: Path) -> None:
    """Write the mean of MicroCinema files, with the metadata of the first.

    Raises:
        ValueError: fewer than two files, one that cannot be read, or one that is not of the first's kind: another role,
            configuration, lambda, prediction ..., tensors of other names, shapes or types, or another vocabulary.
    """
    if len(files) < 2:
        raise ValueError(f"a mean needs two files or more, {len(files)} was given")
    kind = _kind(files[0])
    for file in files[1:]:
        _refuse_another_kind(files[0].name, kind, file.name, _kind(file))
    (first, metadata), *others = [read_tensors(file) for file in files]
    mean = {
        key: _mean(key, [tensor, *(tensors[key] for tensors, _ in others)]) for key, tensor in first.items()
    }
    write_tensors(target, mean, {**metadata, AVERAGED: str(len(files))})


def _kind(file: Path) -> dict[str, object]:
    """What must be the same for a mean to make sense."""
    header = read_header(file)
    tensors = {
        key: (value["dtype"], value["shape"]) for key, value in header.items() if key != "__metadata__"
    }
    return {**read_fields(file.name, header), "tensors": tensors}


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
    """Of weights; what counts or spells (a vocabulary) has to be the same."""
    if not tensors[0].is_floating_point():
        if any(not tensor.equal(tensors[0]) for tensor in tensors):
            raise ValueError(f"{key} differs between the files: a mean is taken of runs of one model")
        return tensors[0]
    return torch.stack([tensor.float() for tensor in tensors]).mean(0).to(tensors[0].dtype)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m microcinema_core.train.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        average(options.files, options.out)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(f"{options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
