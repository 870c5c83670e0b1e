"""Libraries that training, data preparation and the metrics need and the nodes do not."""

from __future__ import annotations

from importlib.util import find_spec


def require(*modules: str) -> None:
    """Check that these modules are installed; a command does so before its workers need them.

    Raises:
        ModuleNotFoundError: one is missing, as an import would say.
    """
    for name in modules:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)


def install_hint(error: ModuleNotFoundError, extra: str) -> str:
    """Return which module is missing and how to install it; `extra` is that of pyproject.toml which brings it."""
    return (
        f"{error.name} is not installed: pip install '.[{extra}]' in this repository brings everything that this "
        "command needs; the nodes work without it"
    )
