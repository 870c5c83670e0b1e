"""One row of the table: a case run on both models, and the outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .world import NoInputError, UnlistedError, World

FIRST, LAST = 1e-5, 1e-3
"""Largest relative differences after one call of the denoiser and after four steps."""

EQUAL, NOT_APPLICABLE, BUG = "equal", "not applicable", "BUG"
RUNS, SAME_AGAIN = "runs", "the same twice"
Case = Callable[[World], Tensor]


@dataclass(frozen=True)
class Row:
    """The outcome of one case on one family.

    Attributes:
        first, last: relative difference of our model to the host's at the first step and at the end.
        effect: relative change of the host's own result by the node; a row without effect proves little.
        why: the reason for an outcome other than "equal".
        random: the same case with random weights (`World.random`): `RUNS`, `SAME_AGAIN`, or how it failed.
    """

    name: str
    family: str
    outcome: str
    first: float | None = None
    last: float | None = None
    effect: float | None = None
    why: str = ""
    random: str = ""


def compare(
    world: World,
    name: str,
    case: Case,
    plain: Tensor | None,
    *,
    first_limit: float = FIRST,
    limit: float = LAST,
) -> Row:
    """Run a case on the host's own model, then on ours.

    Args:
        world: the family's models.
        name: the row's name.
        case: returns the latents that it samples with `world.model`.
        plain: the host's result without the node, to measure its effect; None if unknown.
        first_limit: largest relative difference at the first step.
        limit: largest relative difference at the end.
    """
    try:
        theirs = _run(world, world.stock, case)
    except UnlistedError as error:
        return Row(name, world.family.name, BUG, why=str(error))
    except NoInputError as error:
        return Row(name, world.family.name, NOT_APPLICABLE, why=str(error))
    except Exception as error:  # noqa: BLE001  (whatever a node raises goes into the row)
        why = f"the host's own Stable Diffusion fails too: {sentence(error)}"
        return Row(name, world.family.name, NOT_APPLICABLE, why=why)
    their_steps = list(world.steps)
    try:
        ours = _run(world, world.ours, case)
    except Exception as error:  # noqa: BLE001
        return Row(name, world.family.name, BUG, why=f"only ours fails: {sentence(error)}")
    first = None
    if their_steps and world.steps and their_steps[0].shape == world.steps[0].shape:
        first = difference(world.steps[0], their_steps[0])
    if ours.shape != theirs.shape:
        return Row(name, world.family.name, BUG, why=f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)}")
    last = difference(ours, theirs)
    effect = difference(theirs, plain) if plain is not None and plain.shape == theirs.shape else None
    good = last <= limit and (first is None or first <= first_limit)
    outcome, why = (EQUAL, "") if good else (BUG, "other numbers")
    return Row(name, world.family.name, outcome, first, last, effect, why, _with_random(world, name, case))


def _with_random(world: World, name: str, case: Case) -> str:
    """Run a case on our model with random weights: it has to run, there is no reference."""
    try:
        made = world.made[name] = _run(world, world.random, case)
    except Exception as error:  # noqa: BLE001
        return f"fails: {sentence(error)}"
    return RUNS if made.isfinite().all() else "fails: not finite"


def repeat(world: World, row: Row, case: Case) -> Row:
    """Run a row's case with random weights again, after other cases than before: the row says how it went."""
    if row.random != RUNS:
        return row
    try:
        again = _run(world, world.random, case)
    except Exception as error:  # noqa: BLE001
        return replace(row, random=f"fails the second time: {sentence(error)}")
    first = world.made[row.name]
    if again.shape == first.shape and torch.equal(again, first):
        return replace(row, random=SAME_AGAIN)
    away = f"{difference(again, first):.1e} away" if again.shape == first.shape else "of another shape"
    return replace(row, random=f"fails: {away} the second time")


def difference(value: Tensor, reference: Tensor) -> float:
    """Return the difference relative to the reference's norm; infinite if either is not finite."""
    value, reference = value.double(), reference.double()
    if not (value.isfinite().all() and reference.isfinite().all()):
        return float("inf")
    size = float(reference.norm())
    return float((value - reference).norm()) / (size or 1.0)


def sentence(error: BaseException) -> str:
    """Return an error as one line for a table's cell."""
    text = " ".join(str(error).split()).replace("|", "/")
    return f"{type(error).__name__}: {text}"[:160]


def _run(world: World, model: object, case: Case) -> Tensor:
    with world.using(model):
        return case(world).float().clone()
