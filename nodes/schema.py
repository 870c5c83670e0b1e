"""One source for two hosts: fields that only the newer host knows are passed where its signature has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..microcinema_core.adapter.host import io

CATEGORY = "MicroCinema"
AppearNetSocket = io.Custom("APPEARNET")


def known(make: Callable[..., Any], **fields: Any) -> Any:
    """Call `make` with those of the fields that it takes."""
    parameters = inspect.signature(make).parameters
    return make(**{key: value for key, value in fields.items() if key in parameters})


def node_schema(node_id: str, display_name: str, description: str, **fields: Any) -> io.Schema:
    """Return a schema in the pack's category; `search_aliases` and the like go in where the host has them."""
    return known(
        io.Schema,
        node_id=node_id,
        display_name=display_name,
        description=description,
        category=CATEGORY,
        **fields,
    )


def advanced(make: Callable[..., Any], name: str, **fields: Any) -> Any:
    """Return an optional input that the newer host folds away."""
    return known(make, id=name, optional=True, advanced=True, **fields)
