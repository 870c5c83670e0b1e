"""Values that an annotation does not allow, for configurations and metadata: wrong types, ranges, literals."""

from __future__ import annotations

import dataclasses
import json
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from microcinema_core.config import Config

NAN, INF = float("nan"), float("inf")
DEEP = {"text": "[", "times": 99999}
"""A long text in a short form, which `expanded` makes of it."""
LONG = {"text": "x", "times": 100000}
SURROGATE = "a\ud800b"
NO_NUMBERS: list[Any] = ["3", "", SURROGATE, None, [], [1], {}, {"a": 1}, NAN, INF, -INF]
Range = tuple[float, float] | None


def wrong_values(kind: Any, within: Range = None) -> list[Any]:
    """Return values, as JSON has them, that an annotation with a range does not allow."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        one = next(one for one in inner if one is not NoneType)
        return [value for value in wrong_values(one, within) if value is not None]
    if origin is Literal:
        return ["bogus", "", SURROGATE, str(inner[0]).upper(), None, 3, True, NAN, [], {}, [inner[0]]]
    if origin is tuple:
        return _wrong_tuples(inner, within)
    if kind is bool:
        return [0, 1, 1.0, "true", None, [], {}, NAN]
    if kind is str:
        return [3, 1.5, True, None, [], ["a"], {}, NAN]
    if kind in (int, float):
        beyond = [] if within is None else [within[0] - 1, within[1] + 1, -(2**63), 2**64, 10**30, 1e300]
        return [*NO_NUMBERS, True, 10**400, *(int(n) if kind is int else n for n in beyond), *_broken(kind)]
    if dataclasses.is_dataclass(kind):
        return [3, "text", [], [1], None, True, NAN, {"surprise": 1}]
    raise TypeError(f"no wrong values are known for {kind}")


def _broken(kind: type) -> list[Any]:
    return [1.5] if kind is int else []


def _wrong_tuples(inner: tuple[Any, ...], within: Range) -> list[Any]:
    of_one = wrong_values(inner[0], within)
    count = 1 if inner[-1] is Ellipsis else len(inner)
    good: Any = 2 if inner[0] is int else 0.5
    wrong = [[value] * count for value in of_one]
    lengths = [[good] * 5000] if inner[-1] is Ellipsis else [[], [good] * (count + 1), [good] * 5000]
    return ["text", 3, None, {}, True, NAN, *wrong, *lengths]


def fields_of(kind: type[Config], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any, Range]]:
    """Return path, annotation and range of every field of a configuration, those of inner ones too."""
    found = []
    for name, hint in get_type_hints(kind).items():
        if name not in {one.name for one in dataclasses.fields(kind)}:  # type: ignore[arg-type]
            continue
        found.append(((*path, name), hint, kind.RANGES.get(name)))
        if isinstance(hint, type) and issubclass(hint, Config):
            found += fields_of(hint, (*path, name))
    return found


def expanded(value: Any) -> Any:
    """Return a fault's value with long texts in full."""
    if isinstance(value, dict) and value.keys() == {"text", "times"}:
        return value["text"] * value["times"]
    return value


def wrong_texts(kind: Any, within: Range = None) -> list[Any]:
    """Return texts that a metadata entry of this annotation cannot be."""
    if isinstance(kind, type) and issubclass(kind, Config):
        inner = [
            json.dumps({path[0]: value})
            for path, hint, span in fields_of(kind)
            if len(path) == 1
            for value in wrong_values(hint, span)
        ]
        return [
            "",
            "{",
            "[]",
            "null",
            "3",
            "NaN",
            DEEP,
            {"text": '{"a":', "times": 99999},
            '{"surprise": 1}',
            *inner,
        ]
    if kind in (int, float):
        low, high = within or (0, 1e300)
        texts = [
            "nan",
            "inf",
            "-inf",
            "",
            "x",
            "1,5",
            "[1]",
            "0x10",
            SURROGATE,
            "1e999",
            {"text": "9", "times": 400},
        ]
        beyond = [low - 1, high + 1] if kind is float else [int(low) - 1, int(high) + 1]
        return [*texts, *map(repr, beyond), *(["1.5", "2e0"] if kind is int else [])]
    if get_origin(kind) is tuple:
        inner = [json.dumps(value) for value in wrong_values(kind, within)]
        return ["", "{", "null", "7", "{}", DEEP, *inner]
    if kind is str:
        return []
    return ["bogus", "", "3", "EPS", "null", SURROGATE, LONG]
