"""What hypothesis draws for the nodes: one or a few faults of the inputs of a good graph, from the schemas."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ..campaign import Target, one_of_list
from ..files.cases import Faults, damages
from ..files.damage import ABSENT, Fault
from ..values import INF, LONG, NAN, SURROGATE
from ..worker import Worker

COSTLY = {"width": 128, "height": 128, "longer_side": 128, "frames": 33, "steps": 40, "repeat": 10}
"""Largest values that are tried of inputs whose own limit would need more memory or time than a test has."""
NO_NAMES: list[Any] = ["bogus", "", " ", None, 3, 1.5, True, NAN, SURROGATE, "\0", "../../../evil", "..\\evil",
                       "/etc/passwd",
                       "C:\\evil", {"text": "x", "times": 5000}, "a\nb", "\u202eb", {}, "None", "nan"]  # fmt: skip
NO_NUMBERS: list[Any] = [
    NAN,
    INF,
    -INF,
    None,
    "x",
    "",
    SURROGATE,
    {},
    {"a": 1},
    "nan",
    "inf",
    2**64,
    -(2**64),
    10**400,
    1e300,
]
NO_LINKS: list[Any] = ["text", "", 3, None, NAN, {}, {"samples": 3}, True]


def targets(worker: Worker) -> list[Target]:
    """Return a target for each node of the pack."""
    about = worker.describe()
    return [
        Target(
            name,
            worker,
            [{"target": name, "from": graph, "faults": []} for graph in node["good"]],
            _cases(name, node, about),
        )
        for name, node in about["nodes"].items()
    ]


def _cases(name: str, node: dict[str, Any], about: dict[str, Any]) -> SearchStrategy[dict[str, Any]]:
    of_input = {key: _of_input(name, key, said, about) for key, said in node["inputs"].items()}
    one = st.sampled_from(sorted(of_input)).flatmap(lambda key: of_input[key])
    allowed = one.filter(
        lambda fault: not fault["bad"]
    )  # several of these reach what one that is refused hides
    some, odd = (
        st.lists(drawn, min_size=1, max_size=most, unique_by=lambda fault: fault["at"])
        for drawn, most in ((one, 2), (allowed, 4))
    )

    def case(drawn: tuple[str, list[Fault]]) -> dict[str, Any]:
        graph, faults = drawn
        given = {*node["good"][graph], *(fault["at"] for fault in faults)}
        seen = [{**one, "bad": one["bad"] and node["unused"].get(one["at"]) not in given} for one in faults]
        return {"target": name, "from": graph, "faults": seen}

    return st.tuples(st.sampled_from(list(node["good"])), st.one_of(some, odd)).map(case)


def _of_input(name: str, key: str, said: dict[str, Any], about: dict[str, Any]) -> Faults:
    """Return the faults of one input, by its kind."""
    absent = st.just(_fault("absent", key, ABSENT, bad=said["required"]))
    if said["kind"] in about["sources"]:
        names = about["sources"][said["kind"]]
        link = one_of_list(sorted(names)).map(
            lambda source: _fault(
                "link", key, source, bad=names[source] and (source != "None" or said["required"])
            )
        )
        direct = one_of_list(NO_LINKS).map(
            lambda value: _fault("widget", key, value, bad=value is not None or said["required"])
        )
        return st.one_of(link, link, link, link, direct, absent)
    if said["kind"] not in (
        "INT",
        "FLOAT",
        "COMBO",
        "STRING",
        "BOOLEAN",
    ):  # a link of which no value is known
        odd = one_of_list([value for value in NO_LINKS if value is not None])
        return st.one_of(odd.map(lambda value: _fault("widget", key, value, bad=True)), absent)
    kinds = {"INT": _number, "FLOAT": _number, "COMBO": _combo}
    drawn = kinds.get(said["kind"], _any_value)(key, said)
    if key in about["files"].get(name, {}):
        drawn = st.one_of(drawn, *[_files(key, about["files"][name][key])] * 3)
    return st.one_of(drawn, drawn, drawn, drawn, absent)


def _fault(do: str, at: str, value: Any, *, bad: bool) -> Fault:
    return {"do": do, "at": at, "value": value, "bad": bad}


def _number(key: str, said: dict[str, Any]) -> Faults:
    """Draw a number in the input's range, at its bounds, or what is none; typed in, or brought by a link."""
    whole = said["kind"] == "INT"
    low, high = said["min"], min(said["max"], COSTLY.get(key, said["max"]))
    inside = st.integers(low, high) if whole else st.floats(low, high)
    step: Any = 1 if whole else max(1e-3, 1e-6 * abs(said["max"]))
    beyond = [said["min"] - step, said["max"] + step, said["min"] - 10**9, said["max"] * 2 + 10**9]
    good = st.one_of(inside, st.sampled_from([low, high]))
    wrong = one_of_list([*NO_NUMBERS, *beyond])
    only_linked = one_of_list([NAN, INF, -INF, None, *beyond, *([2.5] if whole else [])])
    return st.one_of(
        st.tuples(st.sampled_from(["widget", "linked"]), good).map(
            lambda one: _fault(one[0], key, one[1], bad=False)
        ),
        wrong.map(lambda value: _fault("widget", key, value, bad=True)),
        only_linked.map(
            lambda value: _fault("linked", key, value, bad=value is not None or said["required"])
        ),
    )


def _combo(key: str, said: dict[str, Any]) -> Faults:
    good = one_of_list(said["options"]).map(lambda value: _fault("widget", key, value, bad=False))
    ways = st.sampled_from(["widget", "linked"])
    wrong = [value for value in NO_NAMES if value not in said["options"]]
    bad = st.tuples(ways, one_of_list(wrong)).map(
        lambda one: _fault(one[0], key, one[1], bad=one[1] is not None or said["required"])
    )
    return st.one_of(good, bad)


def _any_value(key: str, said: dict[str, Any]) -> Faults:
    """Draw any value for a text or a switch, which the host converts."""
    values: list[Any] = ["", "text", SURROGATE, 0, 3, True, False, NAN, {}, LONG, "\0"]
    return one_of_list(values).map(lambda value: _fault("widget", key, value, bad=False))


def _files(key: str, about: dict[str, Any]) -> Faults:
    """Draw a damaged file, or one of another kind, for a widget that names a file."""
    good = about["good"]

    def named(name: str, faults: list[Fault], *, bad: bool) -> Fault:
        return _fault("file", key, {"from": name, "faults": faults}, bad=bad)

    def spoilt(name: str) -> Faults:
        return damages(good[name]).map(
            lambda faults: named(name, faults, bad=any(fault["bad"] for fault in faults))
        )

    other = one_of_list(about["others"]).map(lambda name: named(name, [], bad=True))
    return st.one_of(*[st.sampled_from(sorted(good)).flatmap(spoilt)] * 7, other)
