"""What a step computes: operations, counted on networks without storage. Unlike times, they never wander."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import torch

from devtools.check.encoding_cost import count

from .contenders import ALL, FLOOR, MissingError, Shape, shape_of


def operations(name: str, shape: Shape) -> tuple[int, int]:
    """Operations of one step (two for a multiplication and addition) and parameters of a contender."""
    made = ALL[name](replace(shape, device="meta"))
    # Without storage nothing can be compared. In a run all branches and steps see the same picture.
    with torch.no_grad(), mock.patch("torch.equal", lambda a, b: True):
        made.step()  # what a run computes once is cached by this
        return count(made.step), made.parameters


def ratio(name: str, shape: Shape) -> float:
    """A contender's operations over those of the image model on as many pictures."""
    own = shape_of(name, shape)
    return operations(name, own)[0] / operations(FLOOR, own)[0]


def table(shape: Shape, names: list[str]) -> str:
    """All contenders as Markdown."""
    floor = operations(FLOOR, shape)[0] / shape.frames
    lines = ["| network | parameters | TFLOP a step | of the image model's |", "|---|---|---|---|"]
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
