"""What several files of tests share and none changes, made once for the session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import mini  # noqa: F401  (else pytest takes the folder tests/mini for the package of this name)

if TYPE_CHECKING:
    from tests.data.prepare_world import World


def pytest_runtest_setup() -> None:
    """One thread from the first fixture on: sums are rounded alike whatever ran before; workers do not compete."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """What `data.prepare` is tested on. Needs the libraries of the training extra, so it is imported here."""
    from tests.data.prepare_world import make_world

    return make_world(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def prepared(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its sets, as the command leaves them; `copy_of` gives one that may be changed."""
    out = tmp_path_factory.mktemp("out")
    world.run(out)
    return out
