"""Read-only fixtures that several test files share, made once per session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import mini  # noqa: F401  (else pytest takes the folder tests/mini for the package of this name)

if TYPE_CHECKING:
    from tests.data.prepare_world import World


LONGEST_FIRST = ("test_conformance.py", "test_example.py", "test_benchmarks.py")
"""Files with tests that take minutes: started last, one of them would run alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_runtest_setup() -> None:
    """Use one thread from the first fixture on, so that sums round alike in any order of tests."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return the input of the `data.prepare` tests; it needs the libraries of the training extra."""
    from tests.data.prepare_world import make_world

    return make_world(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def prepared(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sets that the command wrote; `copy_of` makes a copy that a test may change."""
    out = tmp_path_factory.mktemp("out")
    world.run(out)
    return out
