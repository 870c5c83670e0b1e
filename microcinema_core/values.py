"""Types and ranges of values that come from files and configs, checked with a sentence for whatever does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")
Range = tuple[float, float]
"""Smallest and largest allowed value."""
_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text in quotes",
    dict: "a table",
}
LONGEST_LIST = 4096
"""Most entries of a list: longer ones are slips or attacks."""


def shown(value: Any, limit: int = 60) -> str:
    """Return a value for a message: ASCII without line breaks, so that every log can take it, and not long."""
    text = (
        ascii(value)
        if not isinstance(value, (dict, list, tuple)) or len(value) < 50
        else type(value).__name__
    )
    text = " ".join(text.splitlines())  # as in the text of a tensor
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def chosen(value: Any, choices: Iterable[T], name: str) -> T:
    """Return the one of the choices that a value is.

    Raises:
        ValueError: it is none of them; the message lists them.
    """
    known = list(choices)
    for choice in known:
        if choice == value:
            return choice
    raise ValueError(f"{name} is {shown(value)}; choose {', '.join(map(str, known))}.")


def checked(value: Any, kind: Any, name: str, within: Range | None = None) -> Any:
    """Return a value after checking it against an annotation.

    Args:
        value: from JSON or TOML; lists become tuples, and whole numbers pass as numbers.
        kind: `bool`, `int`, `float`, `str`, `dict` with any content, a `Literal`, a tuple of these, one of them or
            None, or a class that the value is an instance of. For `Any` or several of these, nothing is checked.
        name: its name, for the message.
        within: smallest and largest allowed number, the largest may be infinite; for a tuple, of each of its numbers.

    Raises:
        ValueError: another type, a number that is not finite or out of range, or an unknown literal.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        kinds = [one for one in inner if one is not NoneType]
        if len(kinds) > 1 or (value is None and len(kinds) < len(inner)):
            return value
        return checked(value, kinds[0], name, within)
    if origin is Literal:
        if value not in inner or isinstance(value, bool):
            raise ValueError(f"{name} is {shown(value)}; expected one of {', '.join(map(str, inner))}")
        return value
    if origin is tuple:
        return _checked_tuple(value, inner, name, within)
    if kind in (bool, int, float, str):
        return _checked_plain(value, kind, name, within)
    plain = origin or kind
    if not isinstance(value, plain):
        raise ValueError(f"{name} is {shown(value)}; expected {_NAMES.get(plain, plain.__name__)}")
    return value


def _checked_tuple(value: Any, inner: tuple[Any, ...], name: str, within: Range | None) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} is {shown(value)}; expected a list")
    kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
    if len(kinds) != len(value):
        raise ValueError(f"{name} is {shown(value)}; expected a list of {len(kinds)}")
    if len(value) > LONGEST_LIST:
        raise ValueError(f"{name} has {len(value)} entries; expected at most {LONGEST_LIST}")
    return tuple(
        checked(one, kind, f"{name}[{place}]", within)
        for place, (one, kind) in enumerate(zip(value, kinds, strict=True))
    )


def _checked_plain(value: Any, kind: type, name: str, within: Range | None) -> Any:
    numeric = kind in (int, float) and isinstance(value, (int, kind)) and not isinstance(value, bool)
    fits = numeric or (kind in (bool, str) and isinstance(value, kind))
    if kind is float:
        fits = fits and abs(value) < 2.0**1000 and math.isfinite(value)
    if within is not None and numeric:
        fits = fits and within[0] <= value <= within[1]
    if not fits:
        raise ValueError(f"{name} is {shown(value)}; expected {_NAMES[kind]}{_range_words(kind, within)}")
    return float(value) if kind is float else value


def _range_words(kind: type, within: Range | None) -> str:
    if within is None or kind not in (int, float):
        return ""
    low, high = within
    return f", {low:g} or more" if math.isinf(high) else f" from {low:g} to {high:.14g}"


def checked_fields(
    values: Any, hints: Mapping[str, Any], ranges: Mapping[str, Range], name: str
) -> dict[str, Any]:
    """Return the values of a JSON object, each checked against its annotation and range.

    Raises:
        ValueError: no JSON object, or as for `checked`.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} is {shown(values)}; expected a JSON object")
    return {key: checked(value, hints[key], key, ranges.get(key)) for key, value in values.items()}
