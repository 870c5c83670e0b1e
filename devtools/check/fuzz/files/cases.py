"""What hypothesis draws for the readers: a good file, and one or two faults."""

from __future__ import annotations

import functools
from typing import Any, get_type_hints

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from microcinema_core.config import ROLES, Prediction
from microcinema_core.files.checkpoint import NETWORKS
from microcinema_core.model_spec import ModelSpec

from ..campaign import Case, Target, one_of_list
from ..values import DEEP, LONG, SURROGATE, fields_of, wrong_texts, wrong_values
from ..worker import Worker
from .damage import ABSENT, DTYPES, FILLED, FLOATS, HEADERS, SHAPES, WHOLES, Fault

Faults = SearchStrategy[Fault]
OFFSETS: list[Any] = [ABSENT, None, 3, "0", [], [0], [8, 0], [-8, 0], [0, 4, 8], ["0", "8"], [0, 2**62], [0, 10**30],
                      [0.0, 8.0], [True, 8], [[0], [8]], {"a": 1}]  # fmt: skip
SIDES: list[Any] = [ABSENT, None, 3, "2", [-2], [2.5], ["2"], [10**30], [2**62, 2**62], [None], [[2]], [True, 7], {},
                    [1] * 100, [2] * 70]  # fmt: skip
DTYPE_NAMES: list[Any] = [ABSENT, None, 7, "", "F12", "float32", [], {}, "F" * 1000, SURROGATE]
ENTRIES: list[Any] = [None, 3, [], [1], "text", {}, {"dtype": "F32"}, True]
METADATA: list[Any] = [None, 3, [1], "text", {"a": 1}, {"a": None}, {"a": ["b"]}, True]
SETTINGS = ["[", "[1]", "null", "3", '{"prediction_type": 3}', '{"prediction_type": "sample"}', DEEP, "", "\x00",
            '{"prediction_type": ["epsilon"]}', '{"prediction_type": {}}', '{"prediction_type": true}']  # fmt: skip


def targets(worker: Worker) -> list[Target]:
    """Return a target for each reader."""
    return [
        Target(
            name,
            worker,
            [{"target": name, "from": file, "faults": []} for file in said["files"]],
            one_of_list(sorted(said["files"])).flatmap(functools.partial(_cases, name, said)),
        )
        for name, said in worker.describe().items()
    ]


def _cases(name: str, said: dict[str, Any], file: str) -> SearchStrategy[Case]:
    """Return cases of a reader that start from one of its files."""
    drawn = damages(said["files"][file])
    if not said["files"][file]["folder"]:
        bad = name != "read_checkpoint"
        other = _choice("file of another kind", said["others"], bad=bad).map(lambda fault: [fault])
        drawn = st.one_of(*[drawn] * 9, other)
    return drawn.map(lambda faults: _case(name, file, faults))


def _case(name: str, file: str, faults: list[Fault]) -> Case:
    other = next((fault["value"] for fault in faults if fault["do"] == "file of another kind"), file)
    return {"target": name, "from": other, "faults": faults}


def damages(about: dict[str, Any]) -> SearchStrategy[list[Fault]]:
    """Return what can be damaged in a good file: one fault of the whole, or one or two of what is in it.

    Args:
        about: the file's `contents`.
    """
    inner = [_tensors(about), _tensors(about), _entries(about)]
    if "microcinema.format" in about["metadata"]:
        inner += [_metadata(), _metadata(), *(_configs(part) for part in about["parts"] for _ in "123")]
    if about["folder"]:
        inner += [_folder()]
    alone = [
        _choice("whole", sorted(WHOLES), bad=True),
        _choice("header", sorted(HEADERS), bad=True),
        _choice("whole metadata", METADATA, bad=True),
        _bytes(),
    ]
    few = st.lists(st.one_of(inner), min_size=1, max_size=2, unique_by=lambda fault: fault["do"].split()[0])
    few = few.map(_without_gone)
    one = st.one_of(alone).map(lambda fault: [fault])
    return st.one_of(few, few, one)


def _without_gone(faults: list[Fault]) -> list[Fault]:
    """Leave out further faults of a tensor that one of the faults removes."""
    gone = [fault["at"] for fault in faults if fault["do"] == "tensor absent"]
    return [fault for fault in faults if fault["do"] == "tensor absent" or _place(fault) not in gone]


def _place(fault: Fault) -> Any:
    """Return where a fault is: the tensor, if it is a tensor's."""
    return fault["at"][0] if fault["do"] == "header entry" else fault["at"]


def _fault(do: str, at: Any, value: Any, *, bad: bool) -> Fault:
    return {"do": do, "at": at, "value": value, "bad": bad}


def _choice(do: str, values: list[Any], *, bad: bool, at: Any = None) -> Faults:
    return one_of_list(values).map(lambda value: _fault(do, at, value, bad=bad))


def _tensors(about: dict[str, Any]) -> Faults:
    """Draw a fault of a tensor: absent, one more, another shape, dtype or values."""
    keys = one_of_list(about["keys"])
    finite, whole, shaped = (set(about[name]) for name in ("finite", "whole", "shaped"))
    changes = [
        keys.map(lambda key: _fault("tensor absent", key, ABSENT, bad=key in whole)),
        one_of_list(["surprise", "a.b.weight", "", SURROGATE[:1] + "\n", "x" * 300]).map(
            lambda key: _fault("tensor added", key, 0, bad=False)
        ),
        st.tuples(keys, one_of_list(sorted(SHAPES))).map(
            lambda drawn: _fault("tensor's shape", *drawn, bad=drawn[0] in shaped)
        ),
        st.tuples(keys, one_of_list(sorted(DTYPES))).map(
            lambda drawn: _fault("tensor's dtype", *drawn, bad=drawn[0] in shaped and drawn[0] in finite)
        ),
        st.tuples(keys, one_of_list(sorted(FLOATS))).map(
            lambda drawn: _fault("tensor's dtype", *drawn, bad=False)
        ),
    ]
    if finite:
        changes += [
            st.tuples(one_of_list(sorted(finite)), one_of_list(sorted(FILLED))).map(
                lambda drawn: _fault("tensor's values", *drawn, bad=True)
            )
        ] * 2
    return st.one_of(changes)


def _entries(about: dict[str, Any]) -> Faults:
    """Draw a fault of a tensor's entry in the header."""
    names = {"data_offsets": OFFSETS, "shape": SIDES, "dtype": DTYPE_NAMES}
    drawn = [(name, value) for name, values in names.items() for value in values]
    field = st.tuples(one_of_list(about["keys"]), one_of_list(range(len(drawn)))).map(
        lambda one: _fault("header entry", [one[0], drawn[one[1]][0]], drawn[one[1]][1], bad=True)
    )
    entry = st.tuples(one_of_list(about["keys"]), one_of_list(ENTRIES)).map(
        lambda one: _fault("header entry", [one[0]], one[1], bad=True)
    )
    overlap = one_of_list(about["later"]).map(lambda key: _fault("header overlap", key, 0, bad=True))
    return st.one_of(field, field, field, entry, overlap)


def _metadata() -> Faults:
    """Draw a fault of an entry of the metadata: of the spec, by its annotations, or of the format."""
    names = {"lambda_": "lambda", "zero_terminal_snr": "terminal"}
    hints = {key: hint for key, hint in get_type_hints(ModelSpec).items() if not key.isupper()}
    hints["role"] = Prediction  # a literal too, though its annotation does not say so
    wrong = {
        f"microcinema.{names.get(key, key)}": wrong_texts(
            str if hint is bool else hint, ModelSpec.RANGES.get(key)
        )
        for key, hint in hints.items()
    }
    wrong["microcinema.format"] = ["2", "", "x", ABSENT, SURROGATE]
    wrong["microcinema.config"] = ["", "{", "[1]", "3", "null", DEEP, ABSENT]
    for key in ("role", "lambda", "fps", "frames"):
        wrong[f"microcinema.{key}"] = [*wrong[f"microcinema.{key}"], ABSENT]
    bad = one_of_list([(key, value) for key, values in wrong.items() for value in values]).map(
        lambda one: _fault("metadata entry", *one, bad=True)
    )
    other: dict[str, list[Any]] = {
        "microcinema.role": list(ROLES), "microcinema.prediction": ["v", "eps"], "microcinema.terminal": ["zero"],
        "microcinema.betas": ["linear"], "microcinema.residual": ["0.5"], "microcinema.lambda": ["0", "1"],
        "microcinema.fps": ["0.001", "1000"], "microcinema.frames": ["1", "4096"], "modelspec.title": [LONG],
        "microcinema.window": ['{"factor": 64, "pairs": 64}'], "microcinema.surprise": ["1"], "x": [SURROGATE],
    }  # fmt: skip
    odd = one_of_list([(key, value) for key, values in other.items() for value in values]).map(
        lambda one: _fault("metadata entry", *one, bad=False)
    )
    return st.one_of(bad, bad, odd)


def _configs(part: str) -> Faults:
    """Draw a fault of a field of a network's configuration, by its annotation."""
    fields = fields_of(NETWORKS[part][0])
    wrong = [([part, *path], value) for path, hint, within in fields for value in wrong_values(hint, within)]
    wrong += [([part], value) for value in wrong_values(NETWORKS[part][0])] + [
        ([part, "surprise"], 1),
        ([part], ABSENT),
    ]
    bad = one_of_list(wrong).map(lambda one: _fault("configuration", *one, bad=True))
    paths = [path for path, hint, _ in fields if hint is int]
    free = st.tuples(one_of_list(paths), one_of_list([0, 1, 2, 3, 7, 33, 64, 128, 4096, 65536])).map(
        lambda one: _fault("configuration", [part, *one[0]], one[1], bad=False)
    )
    gone = one_of_list([path for path, _, _ in fields]).map(
        lambda path: _fault("configuration", [part, *path], ABSENT, bad=False)
    )
    return st.one_of(bad, bad, bad, free, gone)


def _folder() -> Faults:
    return st.one_of(
        _choice("folder settings", SETTINGS, bad=True),
        st.just(_fault("folder without", "unet", ABSENT, bad=True)),
        st.just(_fault("folder without", "scheduler", ABSENT, bad=False)),
    )


def _bytes() -> Faults:
    """Draw a fault of the file as bytes."""
    share = st.floats(0, 1, exclude_max=True)
    return st.one_of(
        share.map(lambda value: _fault("cut", None, value, bad=True)),
        st.integers(1, 4096).map(lambda value: _fault("appended", None, value, bad=False)),
        one_of_list([0, 1, 7, 2**20, 2**31, 2**62, 2**64 - 1]).map(
            lambda value: _fault("length", None, value, bad=True)
        ),
        st.tuples(share, st.integers(0, 255)).map(lambda one: _fault("byte", *one, bad=False)),
        *[st.tuples(share, st.integers(0, 255)).map(lambda one: _fault("header byte", *one, bad=False))] * 3,
    )
