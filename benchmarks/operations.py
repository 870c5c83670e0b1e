"""Operations of a step, counted on networks without storage; unlike times, they are exact."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import torch

from devtools.check.encoding_cost import count

from .contenders import ALL, FLOOR, MissingError, Shape, shape_of


def operations(name: str, shape: Shape) -> tuple[int, int]:
    """Return operations of one step (a multiply-add counts two) and parameters of a contender."""
    made = ALL[name](replace(shape, device="meta"))
    # Tensors without storage cannot be compared; in a real run all branches and steps have the same centre frame.
    with torch.no_grad(), mock.patch("torch.equal", lambda a, b: True):
        made.step()  # fills the run's cache
        return count(made.step), made.parameters


def ratio(name: str, shape: Shape) -> float:
    """Return a contender's operations relative to the image model on as many pictures."""
    own = shape_of(name, shape)
    return operations(name, own)[0] / operations(FLOOR, own)[0]


def table(shape: Shape, names: list[str]) -> str:
    """Format all contenders as Markdown."""
    floor = operations(FLOOR, shape)[0] / shape.frames
    lines = ["| network | parameters | TFLOP per step | relative to the image model |", "|---|---|---|---|"]
    for name in names:
        own = shape_of(name, shape)
        try:
            counted, parameters = operations(name, own)
        except MissingError as error:
            lines.append(f"| {name} | | | not counted: {error} |")
            continue
        per_frame = counted / own.frames
        lines.append(
            f"| {name} | {parameters / 1e6:.0f} M | {counted / 1e12:.2f} | {per_frame / floor:.3f} |"
        )
    return "\n".join(lines) + "\n"
