"""All rows of a run: for every family, the host's nodes, each as a case, and the named cases.

A node is enumerated if one of its inputs or outputs is a MODEL or takes part in sampling (`KINDS`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .cases import BLOCK_CASES, named_cases, one_frame, sampler_cases
from .compare import NOT_APPLICABLE, Case, Row, compare, repeat
from .fixtures import GIVEN, INSTEAD, ONE_FRAME_ONLY
from .fixtures import NOT_APPLICABLE as REASONS
from .inputs import lora_hook, make_inputs
from .models import ALL_BLOCKS, FAMILIES, PIA, VIDEOS, Family, register_families
from .world import FRAMES, NoInputError, World, build, call

KINDS = {
    "MODEL",
    "SAMPLER",
    "SIGMAS",
    "GUIDER",
    "CONDITIONING",
    "NOISE",
    "CONTROL_NET",
    "HOOKS",
    "HOOK_KEYFRAMES",
    "TIMESTEPS_RANGE",
    "LATENT_OPERATION",
    "GLIGEN",
    "STYLE_MODEL",
    "MODEL_PATCH",
}


def all_rows(
    nodes: dict[str, Any],
    folder: Path,
    *,
    quick: bool = False,
    compile_too: bool = False,
    only: str = "",
    family: str = "",
) -> Iterator[Row]:
    """Yield every row.

    Args:
        nodes: the host's node classes by id.
        folder: the folder for the families' files.
        quick: run single nodes for one step, on the first family and PIA; samplers on the first; no other video family.
        compile_too: include TorchCompileModel with its default backend.
        only: text in the names of the rows to run; empty for all.
        family: text in the names of the families to run; empty for all.
    """
    register_families()
    videos = [one for one in VIDEOS if not quick or one is PIA]
    chosen = [one for one in (*FAMILIES, *videos, ALL_BLOCKS) if family.lower() in one.name.lower()]
    for number, current in enumerate(chosen):
        cases = [
            case
            for case in _cases(nodes, current, quick=quick, compile_too=compile_too)
            if only.lower() in case[0].lower()
        ]
        world = build(current, folder / str(number), nodes)
        if current.motion is None:
            yield from (_row(world, name, case, steps) for name, case, steps in cases)
        else:
            yield from _rows_twice(world, cases)


def _rows_twice(world: World, cases: list[tuple[str, Case | None, int]]) -> list[Row]:
    """Return the rows of cases; with random weights each runs again, in reverse order: the same bits are demanded."""
    rows = [_row(world, name, case, steps) for name, case, steps in cases]
    for index, (_, case, steps) in reversed(list(enumerate(cases))):
        if case is not None:
            world.node_steps = steps
            rows[index] = repeat(world, rows[index], case)
    return rows


def _cases(
    nodes: dict[str, Any], family: Family, *, quick: bool, compile_too: bool
) -> Iterator[tuple[str, Case | None, int]]:
    if family is ALL_BLOCKS:
        yield from ((name, case, 4) for name, case in BLOCK_CASES.items())
        return
    short = quick or family in VIDEOS[1:]
    if family in (FAMILIES[0], PIA) or not quick:
        for name, node in enumerate_nodes(nodes):
            case = None if name in REASONS else INSTEAD.get(name) or node_case(name, node)
            yield name, case, 1 if short and name not in INSTEAD else 4
    if family is FAMILIES[0] or not quick:
        for name, case in sampler_cases():
            yield name, case, 2 if short else 4
    of_blocks = BLOCK_CASES if family.config == ALL_BLOCKS.config else {}
    for name, case in {**dict(named_cases(compile_too=compile_too)), **of_blocks}.items():
        yield name, case, 2 if quick else 4
    for name in ONE_FRAME_ONLY:
        yield f"{name}, one frame", one_frame(name), 2 if quick else 4


def _row(world: World, name: str, case: Case | None, steps: int) -> Row:
    if case is None:
        return Row(name, world.family.name, NOT_APPLICABLE, why=REASONS[name])
    world.node_steps = steps
    row = compare(world, name, case, world.plain(steps))
    if name in ONE_FRAME_ONLY and row.outcome == NOT_APPLICABLE:
        return dataclasses.replace(row, why=f"with a batch of several {row.why}")
    return row


def enumerate_nodes(nodes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (id, class) of every node with an input or output of `KINDS`."""
    for name, node in sorted(nodes.items()):
        if KINDS & (input_kinds(node) | set(output_kinds(node))):
            yield name, node


def input_kinds(node: Any) -> set[str]:
    """Return the socket types of a node's inputs."""
    types = node.INPUT_TYPES()
    kinds = set()
    for group in ("required", "optional"):
        for described in (types.get(group) or {}).values():
            kind = described[0]
            if not isinstance(kind, list | tuple):
                kinds |= set(str(getattr(kind, "value", kind)).split(","))
    return kinds


def output_kinds(node: Any) -> list[str]:
    """Return the socket types of a node's outputs, in order."""
    return [str(getattr(kind, "value", kind)) for kind in node.RETURN_TYPES]


def node_case(name: str, node: Any) -> Case:
    """Return the case that runs a node and samples with its output."""

    def run(world: World) -> Tensor:
        inputs = make_inputs(world, node, GIVEN.get(name, {}))
        if getattr(node, "INPUT_IS_LIST", False):
            inputs = {key: [value] for key, value in inputs.items()}
        return consume(world, output_kinds(node), call(node, inputs))

    return run


def consume(world: World, kinds: list[str], values: tuple[Any, ...]) -> Tensor:
    """Sample with a node's outputs, or with the first of them that a sampler takes."""
    found = dict(reversed([(kind, value) for kind, value in zip(kinds, values, strict=False)]))
    if "MODEL" in found:
        return world.ksampler(found["MODEL"])
    if "GUIDER" in found:
        return world.custom(guider=found["GUIDER"])
    if "SAMPLER" in found:
        return world.custom(sampler=found["SAMPLER"])
    if "SIGMAS" in found:
        return world.custom(sigmas=found["SIGMAS"])
    if "NOISE" in found:
        return world.custom(noise=found["NOISE"])
    if "CONDITIONING" in found:
        texts = [value for kind, value in zip(kinds, values, strict=False) if kind == "CONDITIONING"]
        negative = texts[1] if len(texts) > 1 else world.text(2)
        return world.ksampler(positive=texts[0], negative=negative)
    if "LATENT" in found:
        samples = found["LATENT"]["samples"]
        return samples if samples.shape[0] == FRAMES else samples[:FRAMES]
    for kind in kinds:
        if kind in _SAMPLE_BY:
            return _SAMPLE_BY[kind](world, found[kind])
    numbers = [value for value in values if isinstance(value, int | float)]
    if numbers:
        return torch.tensor([float(number) for number in numbers])
    raise NoInputError(f"gives {', '.join(kinds) or 'nothing'}, which no sampler takes")


def _by_hooks(world: World, hooks: Any) -> Tensor:
    (positive,) = world.call("ConditioningSetProperties", cond_NEW=world.text(1), hooks=hooks, **_PLAIN)
    return world.ksampler(positive=positive)


def _by_keyframes(world: World, keyframes: Any) -> Tensor:
    hooks = world.call("SetHookKeyframes", hooks=lora_hook(world), hook_kf=keyframes)[0]
    return _by_hooks(world, hooks)


def _by_range(world: World, span: Any) -> Tensor:
    (positive,) = world.call("ConditioningSetProperties", cond_NEW=world.text(1), timesteps=span, **_PLAIN)
    return world.ksampler(positive=positive)


def _by_control(world: World, net: Any) -> Tensor:
    inputs = {"positive": world.text(1), "negative": world.text(2), "image": world.image(), "strength": 0.8}
    positive, negative = world.call(
        "ControlNetApplyAdvanced", control_net=net, start_percent=0.0, end_percent=1.0, **inputs
    )
    return world.ksampler(positive=positive, negative=negative)


def _by_operation(world: World, operation: Any) -> Tensor:
    return world.ksampler(world.call("LatentApplyOperationCFG", model=world.model, operation=operation)[0])


def _by_boxes(world: World, gligen: Any) -> Tensor:
    box = {"text": "a horse", "width": 64, "height": 32, "x": 8, "y": 8}
    return world.ksampler(
        positive=world.call(
            "GLIGENTextBoxApply",
            conditioning_to=world.text(1),
            clip=world.clip,
            gligen_textbox_model=gligen,
            **box,
        )[0]
    )


def _by_text_encoder(world: World, clip: Any) -> Tensor:
    return world.ksampler(positive=world.call("CLIPTextEncode", clip=clip, text="a horse")[0])


_PLAIN = {"strength": 1.0, "set_cond_area": "default"}
_SAMPLE_BY = {
    "HOOKS": _by_hooks,
    "HOOK_KEYFRAMES": _by_keyframes,
    "TIMESTEPS_RANGE": _by_range,
    "CONTROL_NET": _by_control,
    "LATENT_OPERATION": _by_operation,
    "GLIGEN": _by_boxes,
    "CLIP": _by_text_encoder,
}
