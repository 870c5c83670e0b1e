"""A table of a TOML config as a frozen dataclass, or one sentence: the key, its value, and what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
Range = tuple[float, float]
"""Least and greatest value of a key; a dataclass lists its own in RANGES."""

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    dict: "a table",
    tuple: "a list",
}


def from_table(cls: type[T], table: Any, where: str) -> T:
    """A dataclass from a TOML table; `where` is its name, as in "[optim]", or "the config" for the outermost.

    Raises:
        ValueError: no table, an unknown or missing key, a value of another type or out of its range.
    """
    if not isinstance(table, dict):
        raise ValueError(f"{where} is {table!r}; a table was expected")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise ValueError(f"{where} has no key {key!r}{nearest(key, fields)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in table and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    hints, ranges = get_type_hints(cls), getattr(cls, "RANGES", {})
    prefix = f"{where[1:-1]}." if where.startswith("[") else ""
    return cls(**{k: checked(value, hints[k], f"{prefix}{k}", ranges.get(k)) for k, value in table.items()})


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the one that was meant, or all that there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it knows {', '.join(known)}"


def checked(value: Any, kind: Any, name: str, limits: Range | None = None) -> Any:
    """The value, lists as tuples; ValueError where it is of another type than `kind` or outside of its limits."""
    value = tuple(value) if isinstance(value, list) else value
    if words := _expected(value, kind):
        raise ValueError(f"{name} is {value!r}; {words} was expected")
    if limits is not None and not limits[0] <= value <= limits[1]:
        low, high = limits
        allowed = f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} is {value!r}; it must be {allowed}")
    return value


def _expected(value: Any, kind: Any) -> str:
    """What was expected in place of a value; "" where it fits. Only the types of WORDS are looked at."""
    plain = get_origin(kind) or kind
    taken = (int, float) if plain is float else plain
    if plain not in WORDS:
        return ""
    if not isinstance(value, taken) or (isinstance(value, bool) and plain is not bool):
        return WORDS[plain]
    return _expected_inside(value, get_args(kind)) if isinstance(value, tuple) else ""


def _expected_inside(values: tuple[Any, ...], kinds: tuple[Any, ...]) -> str:
    """The same of a list's members."""
    if Ellipsis in kinds:
        kinds = kinds[:1] * len(values)
    if len(values) != len(kinds):
        return f"a list of {len(kinds)}"
    wrong = [words for value, kind in zip(values, kinds, strict=True) if (words := _expected(value, kind))]
    return f"a list with {wrong[0]} in each place" if wrong else ""
