"""All rows of a run: every family, every node, every named case."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .cases import BLOCK_CASES, named_cases, one_frame, sampler_cases
from .compare import NOT_APPLICABLE, Case, Row, compare
from .enumerated import enumerate_nodes, node_case
from .families import ALL_BLOCKS, FAMILIES, Family, teach_host
from .fixtures import INSTEAD, ONE_FRAME_ONLY
from .fixtures import NOT_APPLICABLE as REASONS
from .world import World, build


def all_rows(
    nodes: dict[str, Any], folder: Path, *, quick: bool = False, compile_too: bool = False, only: str = ""
) -> Iterator[Row]:
    """Yield every row.

    quick: nodes are asked for one step, and on the first family only. only: a part of the wanted rows' names.
    """
    teach_host()
    for number, family in enumerate((*FAMILIES, ALL_BLOCKS)):
        world = build(family, folder / str(number), nodes)
        for name, case, steps in _cases(nodes, family, quick=quick, compile_too=compile_too):
            if only.lower() in name.lower():
                yield _row(world, name, case, steps)


def _cases(
    nodes: dict[str, Any], family: Family, *, quick: bool, compile_too: bool
) -> Iterator[tuple[str, Case | None, int]]:
    if family is ALL_BLOCKS:
        yield from ((name, case, 4) for name, case in BLOCK_CASES.items())
        return
    if family is FAMILIES[0] or not quick:
        for name, node in enumerate_nodes(nodes):
            case = None if name in REASONS else INSTEAD.get(name) or node_case(name, node)
            yield name, case, 1 if quick and name not in INSTEAD else 4
        for name, case in sampler_cases():
            yield name, case, 2 if quick else 4
    for name, case in named_cases(compile_too=compile_too):
        yield name, case, 2 if quick else 4
    for name in ONE_FRAME_ONLY:
        yield f"{name}, one frame", one_frame(name), 2 if quick else 4


def _row(world: World, name: str, case: Case | None, steps: int) -> Row:
    if case is None:
        return Row(name, world.family.name, NOT_APPLICABLE, why=REASONS[name])
    world.node_steps = steps
    row = compare(world, name, case, world.plain(steps))
    if name in ONE_FRAME_ONLY and row.outcome == NOT_APPLICABLE:
        return dataclasses.replace(row, why=f"with a batch of several {row.why}")
    return row
