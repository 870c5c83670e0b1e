"""Change a prompt in the API format: text, seed, steps, rounds, upscaling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .home import Problem
from .workflow import Prompt

SEEDS = ("seed", "noise_seed")
"""Inputs of sampling nodes that start their noise."""


def nodes_of(prompt: Prompt, kind: str) -> list[dict[str, Any]]:
    """Return the nodes of one class.

    Raises:
        Problem: there is none.
    """
    found = [node for node in prompt.values() if node["class_type"] == kind]
    if not found:
        raise Problem(f"The workflow has no {kind} node.")
    return found


def set_everywhere(prompt: Prompt, names: tuple[str, ...], value: Any) -> None:
    """Set every unconnected input with one of these names."""
    for node in prompt.values():
        for name in names:
            if name in node["inputs"] and not isinstance(node["inputs"][name], list):
                node["inputs"][name] = value


def set_seeds(prompt: Prompt, seed: int) -> None:
    """Give each sampling node a seed of its own: the first one `seed`, the next ones the numbers after it."""
    for node in prompt.values():
        for name in SEEDS:
            if name in node["inputs"] and not isinstance(node["inputs"][name], list):
                node["inputs"][name], seed = seed, (seed + 1) % 2**64


def values_of(prompt: Prompt, names: tuple[str, ...]) -> list[Any]:
    """Return the values of all unconnected inputs with one of these names."""
    inputs = [node["inputs"] for node in prompt.values()]
    return [
        given[name]
        for given in inputs
        for name in names
        if name in given and not isinstance(given[name], list)
    ]


def set_text(prompt: Prompt, text: str) -> None:
    """Set the text that the `positive` inputs are encoded from."""
    links = [node["inputs"]["positive"] for node in prompt.values() if "positive" in node["inputs"]]
    found = [node for link in links for node in _text_nodes(prompt, link[0])]
    if not found:
        raise Problem("The workflow has no text node behind a `positive` input.")
    for node in found:
        node["inputs"]["text"] = text


def get_text(prompt: Prompt) -> str:
    """Return the text that the `positive` inputs are encoded from."""
    for node in prompt.values():
        if "positive" in node["inputs"]:
            for text_node in _text_nodes(prompt, node["inputs"]["positive"][0]):
                return str(text_node["inputs"]["text"])
    return ""


def _text_nodes(prompt: Prompt, start: str) -> list[dict[str, Any]]:
    """Return the CLIPTextEncode nodes upstream of `start`, including itself."""
    if prompt[start]["class_type"] == "CLIPTextEncode":
        return [prompt[start]]
    links = [value for value in prompt[start]["inputs"].values() if isinstance(value, list)]
    return [node for link in links for node in _text_nodes(prompt, link[0])]


def set_rounds(prompt: Prompt, rounds: int) -> None:
    """Set the interpolation rounds; 0 removes the interpolation from the graph."""
    if rounds:
        for node in nodes_of(prompt, "MicroCinemaTSR"):
            node["inputs"]["rounds"] = rounds
        return
    for identity in [i for i, node in prompt.items() if node["class_type"] == "MicroCinemaTSR"]:
        given = prompt[identity]["inputs"]
        instead = {0: given["key_frames"], 1: given["fps"]}
        del prompt[identity]
        for node in prompt.values():
            for name, value in node["inputs"].items():
                if isinstance(value, list) and value[0] == identity:
                    node["inputs"][name] = instead[value[1]]


def prune(prompt: Prompt, object_info: Mapping[str, Any]) -> None:
    """Remove the nodes that no output node depends on."""
    needed: set[str] = set()
    ahead = [identity for identity, node in prompt.items() if object_info[node["class_type"]]["output_node"]]
    while ahead:
        identity = ahead.pop()
        if identity not in needed:
            needed.add(identity)
            ahead += [value[0] for value in prompt[identity]["inputs"].values() if isinstance(value, list)]
    for identity in set(prompt) - needed:
        del prompt[identity]


def add_upscaler(prompt: Prompt, file_name: str) -> None:
    """Insert the host's own upscaler before the frames are combined."""
    prompt["upscaler"] = {
        "class_type": "UpscaleModelLoader",
        "inputs": {"model_name": file_name},
        "_meta": {"title": f"Load {file_name}"},
    }
    for number, node in enumerate(nodes_of(prompt, "MicroCinemaFrameCombine")):
        prompt[f"upscale-{number}"] = {
            "class_type": "ImageUpscaleWithModel",
            "inputs": {"upscale_model": ["upscaler", 0], "image": node["inputs"]["images"]},
            "_meta": {"title": "Upscale"},
        }
        node["inputs"]["images"] = [f"upscale-{number}", 0]
