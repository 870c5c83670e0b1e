"""Libraries that training and data preparation need and the nodes do not."""

from __future__ import annotations

from importlib.util import find_spec

ALL = (
    "pip install '.[train]' in this repository brings all that training and data preparation need; "
    "the nodes do without"
)


def need(*libraries: str) -> None:
    """ValueError with one sentence where one of these modules is not installed."""
    for name in libraries:
        if find_spec(name) is None:
            raise ValueError(f"{name} is not installed: {ALL}")


def to_install(error: ModuleNotFoundError) -> str:
    """That sentence for a module that an import did not find."""
    return f"{error.name} is not installed: {ALL}"
