"""Libraries that training and data preparation need and the nodes do not."""

from __future__ import annotations

from importlib.util import find_spec

ADVICE = (
    "pip install '.[train]' in this repository brings everything that training and data preparation need; "
    "the nodes work without it"
)


def require(*modules: str) -> None:
    """Check that these modules are installed.

    Raises:
        ValueError: one is missing; the message names it and says how to install it.
    """
    for name in modules:
        if find_spec(name) is None:
            raise ValueError(f"{name} is not installed: {ADVICE}")


def install_hint(error: ModuleNotFoundError) -> str:
    """Return the same message for a module that an import did not find."""
    return f"{error.name} is not installed: {ADVICE}"
