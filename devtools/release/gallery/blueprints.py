"""Subgraph blueprints: several nodes as one, in the front end's node library."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .graph import Graph, Node, Out
from .parts import Mini, load_mini, prompts

ENTRY, EXIT = -10, -20
"""The front end's ids for the inputs and outputs of a subgraph."""


@dataclass
class Blueprint:
    """A graph with the inputs, outputs and widgets that it has as a single node.

    Attributes:
        graph: the nodes inside.
        inputs: (Name of the outer input, inner node, name of its input).
        outputs: (Name of the outer output, inner output).
        widgets: (Inner node, name of its widget) of the widgets shown on the outer node.
    """

    graph: Graph
    inputs: list[tuple[str, Node, str]] = field(default_factory=list)
    outputs: list[tuple[str, Out]] = field(default_factory=list)
    widgets: list[tuple[Node, str]] = field(default_factory=list)


def image_to_video(graph: Graph, mini: Mini) -> Blueprint:
    """Turn a picture and a prompt into nine key frames."""
    graph.column("Prompt and centre frame")
    image = load_mini(graph, "image", "Load text encoder and VAE")
    words = prompts(graph, image[1], "a happy face laughing")
    centre = graph.add("MicroCinemaCentreFrame", "Centre frame", vae=image[2])
    graph.column("Key frames")
    base = load_mini(graph, "base", "Load the video model")
    keys = graph.add("MicroCinemaSampler", "Key frames", model=base[0], appearnet=base[3], positive=words[0],
                     negative=words[1], centre_frame=centre[0], **mini.base)  # fmt: skip
    pixels = graph.add("VAEDecode", "Frames", samples=keys[0], vae=image[2])
    prompt = Node(words[0][0])
    return Blueprint(
        graph,
        inputs=[("image", centre, "image")],
        outputs=[("key_frames", keys[0]), ("fps", keys[1]), ("images", pixels[0])],
        widgets=[(prompt, "text"), (centre, "fit"), (keys, "seed"), (keys, "steps"), (keys, "cfg")],
    )


def to_32_fps(graph: Graph, mini: Mini) -> Blueprint:
    """Interpolate key frames at 2 fps to 32 fps."""
    graph.column("Prompt")
    image = load_mini(graph, "image", "Load text encoder and VAE")
    words = prompts(graph, image[1], "a happy face laughing")
    graph.column("Interpolation")
    tsr = load_mini(graph, "tsr", "Load the interpolation model")
    given = {**mini.tsr, "rounds": 2}
    between = graph.add("MicroCinemaTSR", "Interpolation", model=tsr[0], appearnet=tsr[3], positive=words[0],
                        negative=words[1], **given)  # fmt: skip
    pixels = graph.add("VAEDecode", "Frames", samples=between[0], vae=image[2])
    prompt = Node(words[0][0])
    return Blueprint(
        graph,
        inputs=[("key_frames", between, "key_frames"), ("fps", between, "fps")],
        outputs=[("images", pixels[0]), ("fps", between[1])],
        widgets=[(prompt, "text"), (between, "seed"), (between, "steps")],
    )


def longer_video(graph: Graph, mini: Mini) -> Blueprint:
    """Go on from the last frame of the last part, with weights that take a picture as the first frame.

    The last part is an input of its own, because the host's LatentFromBatch reaches no further than 64 frames.
    """
    graph.column("Next frames")
    last = graph.add("LatentFromBatch", "Last frame", batch_index=63, length=1)
    made = graph.add("MicroCinemaSampler", "Next frames", centre_frame=last[0], anchor="first")
    new = graph.add(
        "LatentFromBatch", "Without the first, which is there", samples=made[0], batch_index=1, length=63
    )
    joined = graph.add("LatentBatch", "All frames", samples2=new[0])
    return Blueprint(
        graph,
        inputs=[("model", made, "model"), ("appearnet", made, "appearnet"), ("positive", made, "positive"),
                ("negative", made, "negative"), ("frames", joined, "samples1"), ("last_part", last, "samples")],
        outputs=[("frames", joined[0]), ("last_part", made[0]), ("fps", made[1])],
        widgets=[(made, "seed"), (made, "steps"), (made, "cfg")],
    )  # fmt: skip


BLUEPRINTS: dict[str, Callable[[Graph, Mini], Blueprint]] = {
    "MicroCinema Image to Video": image_to_video,
    "MicroCinema to 32 fps": to_32_fps,
    "MicroCinema Longer Video": longer_video,
}


def workflow(name: str, blueprint: Blueprint) -> dict[str, Any]:
    """Return a blueprint in the front end's format: a graph of one node, and that node's definition."""
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"microcinema/blueprint/{name}"))
    definition = _definition(identity, name, blueprint)
    node = {
        "id": 1, "type": identity, "pos": [0, 0], "size": [340, 260], "flags": {}, "order": 0, "mode": 0,
        "inputs": [{"name": slot["name"], "type": slot["type"], "link": None} for slot in definition["inputs"]],
        "outputs": [{"name": slot["name"], "type": slot["type"], "links": []} for slot in definition["outputs"]],
        "title": name,
        "properties": {"proxyWidgets": [[str(node.number), widget] for node, widget in blueprint.widgets]},
        "widgets_values": [],
    }  # fmt: skip
    return {"id": identity, "revision": 0, "last_node_id": 1, "last_link_id": 0, "nodes": [node], "links": [],
            "groups": [], "version": 0.4, "config": {}, "extra": {},
            "definitions": {"subgraphs": [definition]}}  # fmt: skip


def _definition(identity: str, name: str, blueprint: Blueprint) -> dict[str, Any]:
    inner = blueprint.graph.workflow()
    nodes = {node["id"]: node for node in inner["nodes"]}
    links = [dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
             for link in inner["links"]]  # fmt: skip
    right = max(node["pos"][0] + node["size"][0] for node in inner["nodes"])
    inputs, outputs = [], []
    for place, (label, node, field_name) in enumerate(blueprint.inputs):
        target = nodes[node.number]
        slot = next(i for i, entry in enumerate(target["inputs"]) if entry["name"] == field_name)
        entry = target["inputs"][slot]
        entry["link"] = len(links) + 1
        links.append({"id": len(links) + 1, "origin_id": ENTRY, "origin_slot": place, "target_id": node.number,
                      "target_slot": slot, "type": entry["type"]})  # fmt: skip
        inputs.append(_end(identity, label, entry["type"], len(links), [-80, 20 + 20 * place]))
    for place, (label, (origin, slot)) in enumerate(blueprint.outputs):
        source = nodes[origin]["outputs"][slot]
        source["links"] = [*(source["links"] or []), len(links) + 1]
        links.append({"id": len(links) + 1, "origin_id": origin, "origin_slot": slot, "target_id": EXIT,
                      "target_slot": place, "type": source["type"]})  # fmt: skip
        outputs.append(_end(identity, label, source["type"], len(links), [right + 120, 20 + 20 * place]))
    return {
        "id": identity, "version": 1, "revision": 0, "name": name, "config": {}, "widgets": [], "extra": {},
        "state": {"lastGroupId": len(inner["groups"]), "lastNodeId": inner["last_node_id"], "lastLinkId": len(links),
                  "lastRerouteId": 0},
        "inputNode": {"id": ENTRY, "bounding": [-180, 0, 120, 40 + 20 * len(inputs)]},
        "outputNode": {"id": EXIT, "bounding": [right + 100, 0, 120, 40 + 20 * len(outputs)]},
        "inputs": inputs, "outputs": outputs, "nodes": inner["nodes"], "groups": inner["groups"], "links": links,
    }  # fmt: skip


def _end(identity: str, label: str, kind: str, link: int, place: list[float]) -> dict[str, Any]:
    made = uuid.uuid5(uuid.UUID(identity), f"{label} {link}")
    return {"id": str(made), "name": label, "type": kind, "linkIds": [link], "label": label, "pos": place}
