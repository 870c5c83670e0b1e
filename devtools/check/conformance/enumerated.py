"""The host's own list of nodes: those that have to do with a MODEL or with how it is sampled, each as a case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .compare import Case
from .fixtures import GIVEN
from .inputs import make_inputs
from .world import FRAMES, NoInputError, World, call

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


def enumerate_nodes(nodes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (id, class) of every node with such an input or output."""
    for name, node in sorted(nodes.items()):
        if KINDS & (input_kinds(node) | set(output_kinds(node))):
            yield name, node


def input_kinds(node: Any) -> set[str]:
    """The socket types that a node takes."""
    types = node.INPUT_TYPES()
    kinds = set()
    for group in ("required", "optional"):
        for described in (types.get(group) or {}).values():
            kind = described[0]
            if not isinstance(kind, list | tuple):
                kinds |= set(str(getattr(kind, "value", kind)).split(","))
    return kinds


def output_kinds(node: Any) -> list[str]:
    """The socket types that a node gives, in order."""
    return [str(getattr(kind, "value", kind)) for kind in node.RETURN_TYPES]


def node_case(name: str, node: Any) -> Case:
    """Return the case that puts a node where it belongs in a graph."""

    def run(world: World) -> Tensor:
        inputs = make_inputs(world, node, GIVEN.get(name, {}))
        if getattr(node, "INPUT_IS_LIST", False):
            inputs = {key: [value] for key, value in inputs.items()}
        return consume(world, output_kinds(node), call(node, inputs))

    return run


def consume(world: World, kinds: list[str], values: tuple[Any, ...]) -> Tensor:
    """Sample with what a node gave. Where it gives several things, the first that a sampler takes counts."""
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
        if kind in _THROUGH:
            return _THROUGH[kind](world, found[kind])
    numbers = [value for value in values if isinstance(value, int | float)]
    if numbers:
        return torch.tensor([float(number) for number in numbers])
    raise NoInputError(f"gives {', '.join(kinds) or 'nothing'}, which no sampler takes")


def _by_hooks(world: World, hooks: Any) -> Tensor:
    (positive,) = world.call("ConditioningSetProperties", cond_NEW=world.text(1), hooks=hooks, **_PLAIN)
    return world.ksampler(positive=positive)


def _by_keyframes(world: World, keyframes: Any) -> Tensor:
    lora = world.call(
        "CreateHookLora",
        lora_name="kohya.safetensors",
        strength_model=1.0,
        strength_clip=0.0,
        prev_hooks=None,
    )[0]
    return _by_hooks(world, world.call("SetHookKeyframes", hooks=lora, hook_kf=keyframes)[0])


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
_THROUGH = {
    "HOOKS": _by_hooks,
    "HOOK_KEYFRAMES": _by_keyframes,
    "TIMESTEPS_RANGE": _by_range,
    "CONTROL_NET": _by_control,
    "LATENT_OPERATION": _by_operation,
    "GLIGEN": _by_boxes,
    "CLIP": _by_text_encoder,
}
