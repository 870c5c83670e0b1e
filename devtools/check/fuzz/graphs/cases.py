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
NO_SWITCHES: list[Any] = ["yes", "true", "", [], [1, 2], {"a": 1}, 2, -5, 0.5, NAN, INF, None]
NO_TEXTS: list[Any] = [3, 1.5, NAN, True, ["a"], {"a": "b"}, SURROGATE, None]
BRACKETS = "(" * 1900 + "a" + ")" * 1900
TEXTS: dict[str, tuple[list[Any], list[Any]]] = {
    "filename_prefix": (
        ["video/a", "%width%", ".", "CON", "..\\evil", "a/" * 200 + "b", " "],
        ["../../../evil", "/etc/passwd", "a/../../b", "a\0b", LONG],
    ),
    "text": (
        [
            "0: (a:1.2) \\(b\\)\n2: ((c))",
            "0: (a:1e30)",
            "0: embedding:../../etc/passwd",
            "0: :\n1-2: (",
            "1：a",
        ],
        [
            "",
            "text",
            "1024: a",
            "1: a\n0: b",
            "0: (a:nan)",
            "0: (a:inf)\n1: b",
            "0: (a:1e39)",
            f"0: {BRACKETS}",
            LONG,
            "\n".join(f"{frame}: " + "a " * (75 * count - 3) for frame, count in enumerate((11, 13, 17))),
        ],
    ),
    "prefix": (["(a:1.2)", "(", "embedding:b"], ["(a:nan)", BRACKETS, LONG]),
    "suffix": (["(a:0.5)", ")", ":1.2)"], ["(a:-inf)", BRACKETS, LONG]),
}
"""By the name of a text input: texts that are right or odd, and those that must be refused."""
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
            _each(name, node, about),
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


def _each(name: str, node: dict[str, Any], about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a case for each value of a link, a text or a switch, alone in the node's first good graph."""
    graph = next(iter(node["good"]))
    faults: list[Fault] = []
    for key, said in node["inputs"].items():
        if said["kind"] in about["sources"]:
            faults += [
                _fault("link", key, source, bad=bad and (source != "None" or said["required"]))
                for source, bad in about["sources"][said["kind"]].items()
            ]
        if said["kind"] == "STRING":
            faults += [
                _fault("widget", key, text, bad=bad)
                for bad, texts in zip((False, True), TEXTS.get(key, ([], [])), strict=True)
                for text in texts
            ]
        if said["kind"] in ("STRING", "BOOLEAN"):
            faults += [
                _fault("linked", key, value, bad=value is not None or said["required"])
                for value in (NO_TEXTS if said["kind"] == "STRING" else NO_SWITCHES)
            ]
    return [{"target": name, "from": graph, "faults": [fault]} for fault in faults]


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
    kinds = {"INT": _number, "FLOAT": _number, "COMBO": _combo, "BOOLEAN": _switch, "STRING": _text}
    drawn = kinds[said["kind"]](key, said)
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


def _typed(key: str) -> Faults:
    """Draw any value for the widget of a text or a switch, which the host converts."""
    values: list[Any] = ["", "text", SURROGATE, 0, 3, True, False, NAN, {}, LONG, "\0"]
    return one_of_list(values).map(lambda value: _fault("widget", key, value, bad=False))


def _linked(key: str, said: dict[str, Any], wrong: list[Any]) -> Faults:
    """Draw a value of another type that a link brings, which the host hands over as it is."""
    return one_of_list(wrong).map(
        lambda value: _fault("linked", key, value, bad=value is not None or said["required"])
    )


def _switch(key: str, said: dict[str, Any]) -> Faults:
    right = st.booleans().map(lambda value: _fault("linked", key, value, bad=False))
    return st.one_of(_typed(key), right, _linked(key, said, NO_SWITCHES))


def _text(key: str, said: dict[str, Any]) -> Faults:
    """Draw a text, right and wrong ones by what the input is for; typed in, or brought by a link."""
    ways = st.sampled_from(["widget", "linked"])

    def of(texts: list[Any], *, bad: bool) -> Faults:
        return st.tuples(ways, one_of_list(texts)).map(lambda one: _fault(one[0], key, one[1], bad=bad))

    right, wrong = TEXTS.get(key, ([], []))
    drawn = [of(texts, bad=bad) for texts, bad in ((right, False), (wrong, True)) if texts]
    return st.one_of(_typed(key), _linked(key, said, NO_TEXTS), *drawn, *drawn)


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
