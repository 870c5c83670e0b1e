"""Schemas for old and new ComfyUI versions: newer fields are passed only if the host's signature has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..microcinema_core.adapter.host import io

CATEGORY = "MicroCinema"
AppearNetSocket = io.Custom("APPEARNET")


def call_with_supported(make: Callable[..., Any], **fields: Any) -> Any:
    """Call `make` with those of the fields that its signature has."""
    parameters = inspect.signature(make).parameters
    return make(**{key: value for key, value in fields.items() if key in parameters})


def node_schema(node_id: str, display_name: str, description: str, **fields: Any) -> io.Schema:
    """Return a schema in the pack's category. Fields that the host does not have are left out."""
    return call_with_supported(
        io.Schema,
        node_id=node_id,
        display_name=display_name,
        description=description,
        category=CATEGORY,
        **fields,
    )


def advanced_input(make: Callable[..., Any], name: str, *, optional: bool = True, **fields: Any) -> Any:
    """Return an input, optional by default, which newer hosts list under the advanced ones."""
    return call_with_supported(make, id=name, optional=optional, advanced=True, **fields)
