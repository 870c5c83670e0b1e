"""Find in a prompt of the API which inputs hold the text, the seeds and the picture, and which node saves.

Nodes are found by what they are connected to, or named by the user by their title. Where several fit, a Problem says
which, and how to name one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import edit
from .home import Problem
from .workflow import Prompt

Place = tuple[str, str]
"""A node's id and the name of one of its inputs."""
PREVIEWS = {"PreviewImage", "PreviewAny", "PreviewAudio", "MaskPreview", "MicroCinemaFrameCombine"}
"""Output nodes that save no file to keep."""
SAVE_IMAGE = "SaveImage"
CENTRE_FRAME = "MicroCinemaCentreFrame"
PICTURE_LOADER = "protocol-picture"
"""Id of the loader that is added where a graph makes its centre frame itself."""
SEED_VALUES = (*edit.SEEDS, "value")


def title_of(prompt: Prompt, key: str) -> str:
    """Return a node's title, or its class where it has none."""
    return str(prompt[key].get("_meta", {}).get("title") or prompt[key]["class_type"])


def named(prompt: Prompt, name: str, option: str) -> str:
    """Return the id of the node with this title, id or class.

    Raises:
        Problem: there is none, or there are several.
    """
    found = [key for key in prompt if name == key] or [key for key in prompt if title_of(prompt, key) == name]
    found = found or [key for key, node in prompt.items() if node["class_type"] == name]
    if not found:
        raise Problem(f"{option} names {name!r}, but the workflow has {_listed(prompt, prompt)}.")
    if len(found) > 1:
        raise Problem(
            f"{option} names {name!r}, which {len(found)} nodes are called: give one a title of its own."
        )
    return found[0]


def _listed(prompt: Prompt, keys: Sequence[str] | Prompt) -> str:
    return ", ".join(repr(title_of(prompt, key)) for key in keys)


def _fields(info: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the schema of a node's inputs by name.

    Raises:
        Problem: the host has no such node.
    """
    if kind not in info:
        raise Problem(f"The workflow needs the node {kind}, which this ComfyUI does not have.")
    groups = info[kind]["input"]
    return {**(groups.get("required") or {}), **(groups.get("optional") or {})}


def _is_link(value: Any) -> bool:
    return isinstance(value, list)


def _links(prompt: Prompt, info: Mapping[str, Any], key: str, kind: str) -> dict[str, list[Any]]:
    """Return a node's connected inputs of one type."""
    fields = _fields(info, prompt[key]["class_type"])
    given = prompt[key]["inputs"]
    return {
        name: value for name, value in given.items() if _is_link(value) and fields.get(name, [""])[0] == kind
    }


def text_inputs(prompt: Prompt, info: Mapping[str, Any], titles: Sequence[str] = ()) -> list[Place]:
    """Return the inputs that hold the prompt: of the named nodes, or of the one behind the positive conditioning.

    It is empty where the positive conditioning has no text of its own, because a captioner writes it.

    Raises:
        Problem: a named node has no text, or several nodes have one and none is named.
    """
    found: list[Place] = []
    for title in titles:
        key = named(prompt, title, "--prompt-node")
        if not (texts := _texts(prompt, info, key)):
            raise Problem(f"--prompt-node names {title_of(prompt, key)!r}, which has no text to set.")
        found += texts
    found = list(dict.fromkeys(found or _positive_texts(prompt, info)))
    keys = list(dict.fromkeys(key for key, _ in found))
    if len(keys) > 1 and not titles:
        raise Problem(
            f"Several nodes hold a prompt: {_listed(prompt, keys)}; name each that takes the list's with "
            "--prompt-node."
        )
    return found


def _positive_texts(prompt: Prompt, info: Mapping[str, Any]) -> Iterator[Place]:
    for key, node in prompt.items():
        for name, link in _links(prompt, info, key, "CONDITIONING").items():
            guides = "GUIDER" in info[node["class_type"]]["output"] and name == "conditioning"
            if name == "positive" or guides:
                yield from _texts_behind(prompt, info, link)


def _texts_behind(prompt: Prompt, info: Mapping[str, Any], link: Sequence[Any]) -> Iterator[Place]:
    """Follow a conditioning to the encoders that made it, past nodes that change it.

    A node with both conditionings, such as Apply ControlNet, returns the negative one second.
    """
    key, slot = str(link[0]), link[1]
    if key not in prompt:
        return
    given = _links(prompt, info, key, "CONDITIONING")
    if "positive" in given and "negative" in given:
        yield from _texts_behind(prompt, info, given["negative" if slot == 1 else "positive"])
    elif given:
        for other in given.values():
            yield from _texts_behind(prompt, info, other)
    else:
        yield from _texts(prompt, info, key)


def _texts(prompt: Prompt, info: Mapping[str, Any], key: str) -> list[Place]:
    """Return the unconnected texts of a node, or of the nodes that its texts come from; a captioner's are questions."""
    if _is_captioner(prompt, info, key):
        return []
    fields, given = _fields(info, prompt[key]["class_type"]), prompt[key]["inputs"]
    names = [name for name in given if fields.get(name, [""])[0] == "STRING"]
    own = [(key, name) for name in names if not _is_link(given[name])]
    return own or [place for name in names for place in _texts(prompt, info, str(given[name][0]))]


def _is_captioner(prompt: Prompt, info: Mapping[str, Any], key: str) -> bool:
    """Return whether a node makes text of a picture."""
    return bool(_links(prompt, info, key, "IMAGE")) and "STRING" in info[prompt[key]["class_type"]]["output"]


def picture_is_prompt(prompt: Prompt, info: Mapping[str, Any]) -> bool:
    """Return whether the conditioning comes from a picture: by a captioner, or by a model without text such as SVD."""
    return any(
        _is_captioner(prompt, info, key)
        or (
            _links(prompt, info, key, "IMAGE")
            and not _links(prompt, info, key, "CONDITIONING")
            and "CONDITIONING" in info[node["class_type"]]["output"]
        )
        for key, node in prompt.items()
    )


def seed_numbers(prompt: Prompt) -> dict[Place, int]:
    """Number all inputs that may hold a seed: first those of sampling nodes, then values that a user may name.

    Numbers of the whole workflow give its parts the same noise whether they run together or one after another.
    """
    places = [
        (key, name)
        for names in (edit.SEEDS, ("value",))
        for key, node in prompt.items()
        for name in names
        if name in node["inputs"] and not _is_link(node["inputs"][name])
    ]
    return {place: number for number, place in enumerate(places)}


def seed_inputs(prompt: Prompt, titles: Sequence[str] = ()) -> list[Place]:
    """Return the inputs that hold seeds: of the named nodes, or of all.

    Raises:
        Problem: there is none.
    """
    keys = [named(prompt, title, "--seed-node") for title in titles] or list(prompt)
    fitting = SEED_VALUES if titles else edit.SEEDS
    found = [
        (key, name)
        for key in keys
        for name in fitting
        if name in prompt[key]["inputs"] and not _is_link(prompt[key]["inputs"][name])
    ]
    if not found:
        raise Problem("The workflow has no seed to set: name the node that has it with --seed-node.")
    return found


def picture_input(prompt: Prompt, info: Mapping[str, Any], title: str | None = None) -> Place:
    """Return the input that takes a picture's name; a graph that draws its centre frame gets a loader in its place.

    Raises:
        Problem: no node takes a picture, or several do, and none is named.
    """
    loaders = {key: name for key in prompt for name in _uploads(info, prompt[key]["class_type"])}
    if title is not None:
        key = named(prompt, title, "--picture-node")
        return (key, loaders[key]) if key in loaders else _add_loader(prompt, info, key)
    keys = list(loaders) or [key for key, node in prompt.items() if node["class_type"] == CENTRE_FRAME]
    if not keys:
        raise Problem(
            "The workflow takes no picture: give it a Load Image, or name a node with --picture-node."
        )
    if len(keys) > 1:
        raise Problem(f"Several nodes take a picture: {_listed(prompt, keys)}; name one with --picture-node.")
    return (keys[0], loaders[keys[0]]) if loaders else _add_loader(prompt, info, keys[0])


def _uploads(info: Mapping[str, Any], kind: str) -> list[str]:
    fields = _fields(info, kind)
    return [name for name, spec in fields.items() if len(spec) > 1 and spec[1].get("image_upload")]


def _add_loader(prompt: Prompt, info: Mapping[str, Any], key: str) -> Place:
    pictures = _links(prompt, info, key, "IMAGE")
    if not pictures:
        raise Problem(f"{title_of(prompt, key)!r} takes no picture: name another node with --picture-node.")
    prompt[PICTURE_LOADER] = {
        "class_type": "LoadImage",
        "inputs": {"image": ""},
        "_meta": {"title": "Load Image"},
    }
    prompt[key]["inputs"][next(iter(pictures))] = [PICTURE_LOADER, 0]
    return PICTURE_LOADER, "image"


def save_node(prompt: Prompt, info: Mapping[str, Any], title: str | None = None, kind: str = "auto") -> str:
    """Return the id of the node that saves the result.

    Args:
        prompt: the workflow.
        info: the host's schemas.
        title: the node, as the user names it; None finds it.
        kind: "picture" means Save Image; "video" means it only where no other node saves.

    Raises:
        Problem: none does, or several do, and none is named.
    """
    if title is not None:
        return named(prompt, title, "--save-node")
    outputs = [key for key, node in prompt.items() if _is_output(info, node["class_type"])]
    keys = [key for key in outputs if prompt[key]["class_type"] not in PREVIEWS]
    pictures = [key for key in keys if prompt[key]["class_type"] == SAVE_IMAGE]
    if kind != "auto":
        keys = pictures if kind == "picture" else [key for key in keys if key not in pictures] or pictures
    if not keys:
        raise Problem("The workflow saves nothing: add Save Video, or Save Image for pictures.")
    if len(keys) > 1:
        raise Problem(
            f"Several nodes save: {_listed(prompt, keys)}; name one with --save-node, or say --kind."
        )
    return keys[0]


def _is_output(info: Mapping[str, Any], kind: str) -> bool:
    _fields(info, kind)
    return bool(info[kind]["output_node"])


def keep_only(prompt: Prompt, output: str) -> None:
    """Remove every node that this one does not depend on."""
    needed, ahead = set(), [output]
    while ahead:
        key = ahead.pop()
        if key in prompt and key not in needed:  # the host names a connection to a node that is not there
            needed.add(key)
            ahead += [str(value[0]) for value in prompt[key]["inputs"].values() if _is_link(value)]
    for key in set(prompt) - needed:
        del prompt[key]
